"""Values: every signal obeys its equation and is that of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from llmtrace.errors import LLMTraceError, PromptError
from llmtrace.model import Model
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.verify import distance, token_axis
from llmtrace.testing.kit.base import Bench, Kit, beyond, claims, prompt_of
from llmtrace.testing.kit.kinds import are, kind_of
from llmtrace.testing.kit.running import explained, logits, reference, watch
from llmtrace.testing.model import TinyModel

LENGTHS = (1, 2, 12)
"""Of the prompts: one token, one pair, more than two sliding windows."""


class EquationsKit(Kit):
    """What the values are."""

    def test_the_spec_is_the_models(self, model: Model, tiny: TinyModel) -> None:
        """The spec has the sites, shapes, context and vocabulary that the model's configuration says."""
        own = {site: (step.axes, step.shape(3)) for site, step in model.equations.steps.items()}
        with reference(tiny) as other:
            told = {site: (step.axes, step.shape(3)) for site, step in other.equations.steps.items()}
        for site in dict.fromkeys([*told, *own]):
            assert own.get(site) == told.get(site), (
                f"{site} is {own.get(site)} in the spec, and {told.get(site)} in the model"
            )
        for name in ("context", "vocab", "d_model"):
            said, known = getattr(model.spec, name), getattr(tiny.spec, name)
            assert said == known, f"{name} is {said} in the spec, and {known} in the model's configuration"

    def test_every_equation_holds(self, model: Model, tiny: TinyModel) -> None:
        """Under `exact`, each captured signal is its equation applied to the signals captured before it, at every prompt length."""
        _hold(model, tiny)

    def test_the_shipped_preset_gives_the_models_logits(self, one: TinyModel, opened: Callable[..., Model]) -> None:
        """`shipped` opens too, and its logits are the reference's within the rounding that it declares."""
        try:
            model = opened(one, "shipped")
        except LLMTraceError as error:
            raise AssertionError(f"the preset shipped does not open: {error}") from error
        with reference(one) as other:
            away = distance(logits(model.session, one.tokens), logits(other.session, one.tokens))[0]
        assert away <= explained(model.session), f"the logits are {away:.1e} away from the reference's"

    def test_signals_are_the_references(self, model: Model, tiny: TinyModel) -> None:
        """Each signal, and the logits, agree with the reference backend's: what two mistakes that cancel would hide."""
        _agree(model, tiny)

    def test_variants_hold_too(self, one: TinyModel, bench: Bench) -> None:
        """Under each set of options that the kit names in `variants`, every equation holds and signals are the reference's."""
        if not self.variants:
            pytest.skip("the kit names no further options (`variants`)")
        for name, options in self.variants.items():
            with bench.open(one, "exact", options) as model:
                try:
                    _hold(model, one)
                    _agree(model, one)
                except AssertionError as error:
                    raise AssertionError(f"with the options {name}, {error}") from error

    def test_weights_are_the_files(self, model: Model, tiny: TinyModel) -> None:
        """Weights have their schema names and shapes, the values in the file, and no finer ones than the type has in which they are said
        to be stored."""
        claims(self.backend, "weights")
        session = reference(tiny)
        weights, stored = model.weights, getattr(model.session, "stored")  # noqa: B009  the ability's protocol has it
        assert set(weights) <= set(session.weights), "a weight that the spec does not have"
        assert weights, "no weight at all"
        for name in weights:
            assert name in stored, f"stored does not say how {name} is stored"
            found, expected = np.asarray(weights[name], np.float64), np.asarray(session.weights[name], np.float64)
            limit = 2 * ROUNDOFF.get(stored[name], ROUNDOFF["float16"])
            assert distance(found, expected)[0] <= limit, f"{name} is not the file's"
            kind = kind_of(stored[name])
            # norm weights are as multiplied, and some files hold them less one
            assert kind is None or are(kind, found) or (found.ndim == 1 and are(kind, found - 1)), (
                f"{name} is said to be stored as {stored[name]}, and holds numbers that are no {stored[name]}"
            )

    def test_one_token_and_a_full_context_run(self, model: Model, tiny: TinyModel) -> None:
        """A prompt of one token and one that fills the context give the reference's logits; one over the context is a `PromptError`."""
        full = [(7 * place + 3) % model.spec.vocab for place in range(model.spec.context or 64)]
        for tokens in (full[:1], full):
            with reference(tiny) as other:
                expected = other.trace(tokens, capture="logits")["logits"].array
            found = model.trace(tokens, capture="logits")["logits"].array
            away, limit = distance(found, expected)[0], explained(model.session)
            assert away <= limit, (
                f"on {prompt_of(len(tokens))}, the logits are {away:.1e} away from the reference's (rounding explains {limit:.1e}); "
                f"{_cause(model, tiny, tokens, limit)}"
            )
        if model.spec.context is not None:
            try:
                model.trace([*full, 0], capture="logits")
            except PromptError:
                return
            raise AssertionError("a prompt over the context was run")


def _hold(model: Model, tiny: TinyModel) -> None:
    """Every equation, at every length."""
    judged = 0
    for length in LENGTHS:
        for error in model.verify(tiny.tokens[:length]):
            assert error.status != "violated", (
                f"{error.site} is off by {error.relative_error:.1e} (rounding explains {error.tolerance:.1e}) on {prompt_of(length)}"
                f"{': it ' * bool(error.reason)}{error.reason}"
            )
            judged += error.status == "holds"
    assert judged > len(LENGTHS), "nothing but the logits could be judged: hand out weights, and more signals"


def _agree(model: Model, tiny: TinyModel) -> None:
    """All that is handed out is the reference's."""
    others = _away(model, tiny, tiny.tokens, explained(model.session))
    assert not others, f"away from the reference: {others}"


def _away(model: Model, tiny: TinyModel, tokens: Sequence[int], limit: float) -> str:
    """Which signals are not the reference's, in words."""
    found = watch(model.session, tokens).arrays
    with reference(tiny) as other:
        expected = watch(other.session, tokens).arrays
    axis = {site: token_axis(step) for site, step in model.equations.steps.items()}
    away = {site: distance(found[site], expected[site], axis[site])[0] for site in found}
    return beyond(away, limit, axis)


def _cause(model: Model, tiny: TinyModel, tokens: Sequence[int], limit: float) -> str:
    """Where the logits may have gone wrong, as far as the signals before them tell."""
    if len(model.session.offers) == 1:
        return "hand out the signals before them, and test_every_equation_holds names the first that is off"
    first = _away(model, tiny, tokens, limit).partition(":")[0]
    if first in ("", "logits"):
        return "no other signal is, so look at what makes the logits, and at a run in which nothing else is asked for"
    return f"the first signal that is: {first}"
