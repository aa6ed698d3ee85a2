"""Signals that are taken as given: an opaque branch from a capture, or any other site."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import OptionError, SignalUnavailableError, UnknownSignalError
from llmtrace.neutral import check_neutral
from llmtrace.protocol import Request
from llmtrace.selection import Cut

IDS = [0, 1, 2]
FIRST = np.array([[0.0, 1.0], [2.0, 0.0], [-3.0, 1.0]])
SECOND = np.array([[1.0, 1.0], [0.0, 0.0], [5.0, -5.0]])
REPLAY = {"blocks.0.mixer_out": FIRST, "blocks.1.mixer_out": SECOND}


def by_hand():
    """Embeddings, plus both outputs; RMSNorm without weight; times `W_U`, written out."""
    stream = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]) + FIRST + SECOND
    normed = np.array([row / np.sqrt((row[0] ** 2 + row[1] ** 2) / 2) for row in stream])
    return np.stack([normed[:, 0], normed[:, 1], normed[:, 0] + normed[:, 1]], axis=1)


def test_a_run_with_replayed_branches_is_what_the_hand_computes(mixer_model):
    trace = mixer_model.trace(IDS, capture="**", replay=REPLAY)
    np.testing.assert_allclose(trace["logits"].array, by_hand(), rtol=1e-14)
    np.testing.assert_array_equal(trace["blocks.1.resid_pre"].array, [[1, 1], [2, 2], [0, 5]])


def test_a_replayed_signal_says_that_it_was_given(mixer_model):
    trace = mixer_model.trace(IDS, capture="**", replay=REPLAY)
    assert str(trace["blocks.0.mixer_out"].provenance) == "converted(taken as given, not computed)"
    assert trace["blocks.0.resid_post"].provenance.kind == "captured"


def test_without_replay_the_run_is_refused_before_anything_is_computed(mixer_session, observer):
    request = Request((0, 1), {"embed": Cut((None, None)), "logits": Cut((None, None))})
    with pytest.raises(
        SignalUnavailableError,
        match=r"logits rests on blocks\.0\.mixer_out, blocks\.1\.mixer_out, which the equations do not compute",
    ):
        mixer_session.run(request, observer)
    assert observer.events == []


def test_a_branch_that_is_forgotten_is_named_alone(mixer_model):
    with pytest.raises(SignalUnavailableError, match=r"rests on blocks\.1\.mixer_out, which") as caught:
        mixer_model.trace(IDS, capture="logits", replay={"blocks.0.mixer_out": FIRST})
    assert caught.value.gap == "ours"


def test_what_lies_before_the_branch_needs_no_replay(mixer_model):
    trace = mixer_model.trace(IDS, capture="blocks.0.ln1.out")
    np.testing.assert_allclose(trace["blocks.0.ln1.out"].array[2], np.array([3, 4]) / np.sqrt(12.5))


def test_a_later_signal_that_is_given_makes_the_branch_needless(mixer_model):
    stream = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    logits = mixer_model.trace(IDS, capture="logits", replay={"blocks.1.resid_post": stream})["logits"].array
    root = np.sqrt(2.0)
    np.testing.assert_allclose(logits, [[1, 1, 2], [root, 0, root], [0, root, root]], rtol=1e-14)


def test_a_model_with_opaque_branches_passes_the_check_on_opening(mixer_session):
    check_neutral(mixer_session)


def test_a_replayed_site_that_is_none_gets_near_names(mixer_model):
    with pytest.raises(UnknownSignalError, match=r"Did you mean blocks\.0\.mixer_out"):
        mixer_model.trace(IDS, capture="logits", replay=REPLAY | {"blocks.0.mixerout": FIRST})


def test_a_replayed_signal_of_another_prompt_is_refused_with_both_shapes(mixer_model):
    with pytest.raises(OptionError, match=r"blocks\.0\.mixer_out has shape \[3, 2\], and this prompt needs \[2, 2\]"):
        mixer_model.trace([0, 1], capture="logits", replay=REPLAY)


def test_replaying_a_models_own_signals_changes_nothing():
    with llmtrace.open("builtin:induction") as model:
        whole = model.trace("c a f c a", capture=["**", "blocks.*.attn.result"])
        for site in whole:
            if site != "logits":
                again = model.trace("c a f c a", capture="logits", replay={site: whole[site].array})
                np.testing.assert_array_equal(again["logits"].array, whole["logits"].array)


def test_a_replayed_signal_is_what_later_ones_rest_on():
    with llmtrace.open("builtin:induction") as model:
        trace = model.trace("c a f", capture="logits", replay={"blocks.1.resid_post": np.ones((4, 64))})
        row = model.weights["unembed.W_U"].sum(0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(trace["logits"].array, [row] * 4, rtol=1e-6)
