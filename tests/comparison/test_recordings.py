"""Signals of many prompts: kept while there is room, else run again, one at a time; and the answer is the same."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from llmtrace.comparison import recordings
from llmtrace.comparison.comparing import compare
from llmtrace.comparison.recordings import Recordings

SAME = "reference:builtin:induction"
PROMPTS = [[0, 1, 6, 5], [0, 1], [0, 2, 3, 1, 6]]


def signals(number):
    return {"embed": np.full(4, float(number)), "logits": np.arange(2.0)}


def test_what_fits_is_kept_and_the_rest_is_run_again_when_it_is_asked_for():
    again = []
    made = Recordings(lambda number: again.append(number) or signals(number), room=2 * 48)
    views = [made.add(number, signals(number)) for number in range(4)]
    assert [list(view) for view in views] == [["embed", "logits"]] * 4
    assert "embed" in views[3] and "blocks.0.attn.q" not in views[3] and len(views[3]) == 2
    assert again == []
    for number in (0, 1, 2, 2, 3, 2):
        assert views[number]["embed"][0] == number
    assert again == [2, 3, 2]
    with pytest.raises(KeyError):
        views[3]["blocks.0.attn.q"]
    assert again == [2, 3, 2]


def test_of_what_does_not_fit_no_two_prompts_are_there_together():
    there = []

    def again(number):
        assert not any(each() for each in there)
        found = signals(number)
        there.append(weakref.ref(found["embed"]))
        return found

    made = Recordings(again, room=0)
    views = [made.add(number, signals(number)) for number in range(3)]
    assert [views[number]["embed"][0] for number in (0, 2, 1)] == [0, 2, 1]
    assert len(there) == 3


def test_without_room_a_comparison_comes_to_the_same(monkeypatch):
    whole = compare(SAME, SAME, SAME, prompts=PROMPTS)
    monkeypatch.setattr(recordings.Recordings.__init__, "__defaults__", (0,))
    assert compare(SAME, SAME, SAME, prompts=PROMPTS).to_json() == whole.to_json()


def test_of_what_does_not_fit_each_prompt_is_run_once_more_for_each_candidate(monkeypatch):
    from llmtrace.model import Model

    ran = []
    trace = Model.trace
    monkeypatch.setattr(Model, "trace", lambda self, ids, **rest: ran.append(len(ids)) or trace(self, ids, **rest))
    compare(SAME, SAME, prompts=PROMPTS)
    assert ran == [4, 2, 5]
    monkeypatch.setattr(recordings.Recordings.__init__, "__defaults__", (0,))
    ran.clear()
    compare(SAME, SAME, SAME, prompts=PROMPTS)
    assert ran == [4, 2, 5] * 3


def test_the_reference_is_never_run_in_the_middle_of_a_candidate_s_run(monkeypatch):
    from llmtrace.model import Model

    running = []
    fold, trace = Model.fold, Model.trace

    def folding(self, *given, **rest):
        running.append(self)
        try:
            return fold(self, *given, **rest)
        finally:
            running.pop()

    def tracing(self, *given, **rest):
        assert not running
        return trace(self, *given, **rest)

    monkeypatch.setattr(recordings.Recordings.__init__, "__defaults__", (0,))
    monkeypatch.setattr(Model, "fold", folding)
    monkeypatch.setattr(Model, "trace", tracing)
    assert compare(SAME, SAME, prompts=PROMPTS).verdict == "agrees"
