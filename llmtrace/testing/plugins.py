"""For who writes an influence method or a viewer: plain functions that hold one to what the plugin guide promises, in any test.

**Law**: a sentence that holds for every method, or every viewer; what breaks one is an `AssertionError` that says so. What a user would
be told at once (an answer of the wrong shape, a `render` that raises) is the `PluginError` or `SchemaViolationError` that the user gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from llmtrace.brought import fault
from llmtrace.influence.fitness import refusal
from llmtrace.influence.method import Method
from llmtrace.influence.record import Influence
from llmtrace.influence.run import influence
from llmtrace.model import Model
from llmtrace.opening import open as open_model
from llmtrace.testing.model import tiny_model
from llmtrace.testing.viewers import check_viewer
from llmtrace.view.html import page
from llmtrace.view.text import plain

__all__ = ["check_method", "check_viewer"]
FAMILIES = ("llama", "gpt2", "gemma2")
"""Tiny models beside the built-in one: grouped queries; layer norms and biases; norms after branches, softcaps, windows."""
IDS = (3, 1, 6, 5, 2, 15, 4, 3, 1, 6)
CLOSE = 1e-6
"""Relative to the largest score: how far a score may move where only later tokens differ."""
TARGETS, FOIL = (7, 8), 9


def check_method(method: Method, gap: float = 1e-6) -> None:
    """Hold an influence method to its row and to the laws of all methods, on the built-in model and on tiny ones of other families.

    `gap` is the largest completeness gap that its identity may have in double precision. A model that the method refuses
    (`UnsupportedModelError`) is left out, but one must remain. Raises `AssertionError` with the law that is broken, and `PluginError` and
    `SchemaViolationError` as a user would get them.
    """
    wrong = fault("influence method", method)
    _hold(not wrong, f"The influence method {wrong}.")
    moved: list[tuple[bool, bool]] = []
    refused = []
    with _models() as models:
        for model in models:
            if error := refusal(model, method):
                refused.append(str(error))
            else:
                moved.append(_check_on(model, method, gap))
    _hold(bool(moved), f"{method.name} speaks about none of the models here: {' '.join(refused)}")
    if method.aims:
        aims, foils = (any(each) for each in zip(*moved, strict=True))
        _hold(aims, f"{method.name} gives the same scores for every target: its row must say `aims=False`.")
        _hold(
            foils, f"{method.name} gives the same scores with a foil as without: a foil is subtracted from the target."
        )


@contextmanager
def _models() -> Iterator[list[Model]]:
    with TemporaryDirectory() as folder:
        sources = ["builtin:induction", *(str(tiny_model(each, Path(folder) / each).directory) for each in FAMILIES)]
        models = [open_model(source, backend="reference") for source in sources]
        try:
            yield models
        finally:
            for model in models:
                model.close()


def _check_on(model: Model, method: Method, gap: float) -> tuple[bool, bool]:
    """The laws on one model; whether another target, and a foil, moved the scores there."""
    on = f"{method.name} on a {model.spec.family} model"
    before = _logits(model)
    for position in (len(IDS) - 1, len(IDS) // 2, 0):
        found = _ask(model, method, IDS, position)
        at = f"{on} at position {position}"
        _hold(
            np.array_equal(found.scores, _ask(model, method, IDS, position).scores),
            f"{at} does not give the same scores again.",
        )
        short = _ask(model, method, IDS[: position + 1], position)
        size = max(float(np.abs(found.scores).max()), float(np.abs(short.scores).max()))
        _hold(
            bool((np.abs(found.scores[: position + 1] - short.scores) <= CLOSE * size).all()),
            f"{at} gives other scores where the prompt ends there: what comes later cannot matter. Is the task's `position` read?",
        )
        _check_gap(at, method, found, gap)
        _check_shown(at, found)
    _ask(model, method, IDS[:1], 0)
    plain_scores = _ask(model, method, IDS, -1).scores
    aims = method.aims and not np.array_equal(plain_scores, _ask(model, method, IDS, -1, TARGETS[1]).scores)
    foils = method.aims and not np.array_equal(plain_scores, _ask(model, method, IDS, -1, foil=FOIL).scores)
    _hold(before == _logits(model), f"{on} changes the model: weights are not to be written to.")
    return aims, foils


def _ask(
    model: Model, method: Method, ids: Sequence[int], position: int, target: int = TARGETS[0], foil: int | None = None
) -> Influence:
    return influence(model, ids, [method], position, target, foil)[0]


def _logits(model: Model) -> bytes:
    return model.trace(IDS, capture="logits")["logits"].array.tobytes()


def _check_gap(at: str, method: Method, found: Influence, most: float) -> None:
    if method.completeness is None:
        return
    if found.completeness_gap is None:
        _hold(bool(found.warnings), f"{at} claims an identity, and gives neither its gap nor a warning that says why.")
        return
    _hold(
        0 <= found.completeness_gap <= most,
        f"{at} misses its identity ({method.completeness}) by {found.completeness_gap:.1e}, and {most:.0e} is allowed.",
    )


def _check_shown(at: str, found: Influence) -> None:
    document = found.to_json()
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{at} answers what is no JSON ({error}).") from error
    page([document])
    plain([found])


def _hold(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
