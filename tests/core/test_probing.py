"""A backend is asked whether it opens a source, and nobody waits for one that does not answer."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llmtrace.probing import answer


def asked(probe, patience=None):
    backend = type("Asked", (), {"name": "asked", "probe": staticmethod(probe)})
    return answer(backend, "some.model", Path("some.model"), patience)


@pytest.mark.parametrize("fit", ["native", "converting", "reference", None])
def test_an_answer_is_passed_on(fit):
    assert asked(lambda source, path: fit) == (fit, "")


def test_it_is_asked_about_the_source():
    heard = []
    asked(lambda source, path: heard.append((source, path)))
    assert heard == [("some.model", Path("some.model"))]


class Unshowable:
    def __repr__(self):
        raise ValueError("not to be shown")


class Incomparable:
    def __repr__(self):
        return "something"

    def __eq__(self, other):
        raise ValueError("not to be compared")

    __hash__ = None


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (lambda source, path: "yes", "answered 'yes', which is not native, converting, reference or None"),
        (lambda source, path: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda source, path: (_ for _ in ()).throw(SystemExit(3)), "failed: SystemExit: 3"),
        (lambda source, path: (_ for _ in ()).throw(GeneratorExit()), "failed: GeneratorExit"),
        (lambda source, path: Incomparable(), "answered something, which is not native"),
        (lambda source, path: Unshowable(), "failed: ValueError: not to be shown"),
    ],
)
def test_whatever_else_it_does_counts_as_no_with_the_reason(probe, words):
    fit, fault = asked(probe)
    assert fit is None
    assert fault.startswith(f"its probe {words}")


def test_one_that_does_not_end_is_left_behind():
    done = threading.Event()
    start = time.perf_counter()
    assert asked(lambda source, path: done.wait(30), patience=0.1) == (None, "its probe gave no answer within 0.1 s")
    assert time.perf_counter() - start < 10
    (left,) = [thread for thread in threading.enumerate() if thread.name == "probe of asked"]
    assert left.daemon
    done.set()
    left.join(10)
