"""Replacement: other weights for a while, exactly as the equations read them, and then the model's own again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from llmtrace.model import Model
from llmtrace.protocol import SupportsReplacement
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.schema.verify import distance, token_axis
from llmtrace.testing.kit.base import Kit, beyond, claims
from llmtrace.testing.kit.neutral import Refuses, refused
from llmtrace.testing.kit.running import changed, explained, logits, reference, watch
from llmtrace.testing.model import TinyModel

MOVED = 0.2
"""By how much of their spread the numbers of a weight are moved."""


class ReplacingKit(Kit):
    """What `SupportsReplacement` promises."""

    def test_every_weight_is_replaceable_or_there_is_a_reason(self, model: Model, tiny: TinyModel) -> None:
        """Each weight of the session is `replaceable`, or `irreplaceable` with a reason, never both; some are replaceable; what is `tied` is."""
        claims(self.backend, "replacement")
        session = _session(model)
        assert list(session.replaceable), "replacement is claimed, and no weight is replaceable"
        for name in model.weights:
            both = (name in session.replaceable, name in session.irreplaceable)
            assert any(both), f"{name} is neither replaceable nor irreplaceable"
            assert not all(both), f"{name} is replaceable and irreplaceable"
            assert both[0] or session.irreplaceable[name].strip(), f"{name} is irreplaceable, and nothing says why"
        for name in (*session.replaceable, *(each for group in session.tied for each in group)):
            assert name in model.weights, f"{name} is said to be replaceable, and is no weight of the session"
            assert name in session.replaceable, f"{name} is tied to others, and not replaceable"

    def test_a_replaced_weight_is_what_the_model_computes_with(self, model: Model, tiny: TinyModel) -> None:
        """With a weight replaced, signals are the reference's with the same weight replaced, and `weights` has it; no other weight
        is another, and the mapping that was there before, which traces hold, has the model's own. Of each kind of weight one, of the blocks
        in turn."""
        claims(self.backend, "replacement")
        axis = {site: token_axis(step) for site, step in model.equations.steps.items() if not step.equation.integer}
        limit = explained(model.session)
        for weights in _replacements(model):
            names, own, read = (
                ", ".join(weights),
                model.weights,
                {name: np.array(model.weights[name]) for name in model.weights},
            )
            with _replaced(model, weights), reference(tiny) as other, other.replaced(weights):
                for name, array in model.weights.items():
                    if name in weights:
                        away = distance(np.asarray(array), weights[name])[0]
                        assert away <= 2 * max(limit / 256, ROUNDOFF["float32"]), (
                            f"{name} was replaced, and is read {away:.1e} away from what was given"
                        )
                    else:
                        assert np.array_equal(array, read[name], equal_nan=True), (
                            f"{names} replaced, {name} is another too"
                        )
                live = changed({name: read[name] for name in weights}, own)
                assert not live, f"{names} replaced, in the weights that were looked at before, {live}"
                found, expected = watch(model.session, tiny.tokens).arrays, watch(other.session, tiny.tokens).arrays
                others = beyond(
                    {site: distance(found[site], expected[site], axis[site])[0] for site in found if site in axis},
                    limit,
                    axis,
                )
                assert not others, f"with another {names}: {others}"
                moved = distance(logits(model.session, tiny.tokens), expected["logits"])[0]
                assert moved <= limit, (
                    f"with another {names}, and nothing else asked for: logits: {moved:.1e} (rounding explains {limit:.1e})"
                )

    def test_weights_are_back_afterwards(self, model: Model, tiny: TinyModel) -> None:
        """After it, the model gives the same bits as before and has the same weights: also after an exception, after a run that an observer
        stopped, and where one replacement stood within another."""
        claims(self.backend, "replacement")
        before, read = (
            watch(model.session, tiny.tokens).arrays,
            {name: np.array(model.weights[name]) for name in model.weights},
        )

        def back(when: str) -> None:
            others = changed(before, watch(model.session, tiny.tokens).arrays)
            assert not others, f"{when}, {others}"
            unlike = changed(read, dict(model.weights))
            assert not unlike, f"{when}, {unlike}"

        first, *_, last = _replacements(model)
        with _replaced(model, first):
            outer = logits(model.session, tiny.tokens)
            with _replaced(model, last):
                logits(model.session, tiny.tokens)
            assert np.array_equal(logits(model.session, tiny.tokens), outer), (
                f"after {', '.join(last)} was replaced within it, the replaced {', '.join(first)} is not what it was"
            )
        back(f"after {', '.join(first)} was replaced")
        with suppress(_BrokenError), _replaced(model, last):
            raise _BrokenError
        back(f"after an exception while {', '.join(last)} was replaced")
        with _replaced(model, first):
            refused(model, tiny, Refuses(len(before) // 2))
        back(f"after a run that failed while {', '.join(first)} was replaced")


class _BrokenError(Exception):
    """What goes wrong inside."""


def _session(model: Model) -> SupportsReplacement:
    assert isinstance(model.session, SupportsReplacement)
    return model.session


@contextmanager
def _replaced(model: Model, weights: Mapping[str, Array]) -> Any:
    """By the session itself: the core calls it too."""
    with _session(model).replaced(weights):
        yield


def _replacements(model: Model) -> list[dict[str, Array]]:
    """One weight of each kind, of the blocks in turn, with those that it is tied to."""
    session, random = _session(model), np.random.default_rng(0)
    tied = {name: sorted(group) for group in session.tied for name in group}
    kinds: dict[str, list[str]] = {}
    for name in session.replaceable:
        kinds.setdefault(any_layer(name), []).append(name)
    found: list[dict[str, Array]] = []
    for place, names in enumerate(kinds.values()):
        name = names[place % len(names)]
        group = tied.get(name, [name])
        if name == group[0] or layer_of(name) is not None:
            found.append(_moved(model, group, random))
    return found


def _moved(model: Model, names: list[str], random: np.random.Generator) -> dict[str, Array]:
    """Numbers near a weight's own; those of tied weights fit each other, being the same, or turned, or all scaled alike."""
    first, *others = names
    own = np.asarray(model.weights[first], np.float64)
    new = own + MOVED * (own.std() or 1.0) * random.normal(size=own.shape)
    found = {first: new}
    for name in others:
        shape = model.weights[name].shape
        if own.ndim == 2 and shape == own.T.shape and np.array_equal(model.weights[name], own.T):
            found[name] = new.T
        elif shape == own.shape and np.array_equal(model.weights[name], own):
            found[name] = new
        else:
            return {name: 1.5 * np.asarray(model.weights[name], np.float64) for name in names}
    return found
