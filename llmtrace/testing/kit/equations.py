"""Values: every signal obeys its equation and is that of the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmtrace.errors import LLMTraceError, PromptError
from llmtrace.model import Model
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.verify import distance, token_axis
from llmtrace.testing.kit.base import Kit, claims, worst
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
        judged = 0
        for length in LENGTHS:
            for error in model.verify(tiny.tokens[:length]):
                assert error.status != "violated", (
                    f"{error.site} is off by {error.relative_error:.1e} (rounding explains {error.tolerance:.1e}) on a prompt of "
                    f"{length} tokens. {error.reason}"
                )
                judged += error.status == "holds"
        assert judged > len(LENGTHS), "nothing but the logits could be judged: hand out weights, and more signals"

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
        found = watch(model.session, tiny.tokens).arrays
        with reference(tiny) as other:
            expected = watch(other.session, tiny.tokens).arrays
        axis = {site: token_axis(step) for site, step in model.equations.steps.items()}
        away = {site: distance(found[site], expected[site], axis[site])[0] for site in found}
        limit = explained(model.session)
        assert max(away.values()) <= limit, f"more than {limit:.1e} away from the reference: {worst(away)}"

    def test_weights_are_the_files(self, model: Model, tiny: TinyModel) -> None:
        """Weights have their schema names and shapes, and the values in the file."""
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

    def test_one_token_and_a_full_context_run(self, model: Model, tiny: TinyModel) -> None:
        """A prompt of one token and one that fills the context give the reference's logits; one over the context is a `PromptError`."""
        full = [(7 * place + 3) % model.spec.vocab for place in range(model.spec.context or 64)]
        for tokens in (full[:1], full):
            with reference(tiny) as other:
                expected = other.trace(tokens, capture="logits")["logits"].array
            found = model.trace(tokens, capture="logits")["logits"].array
            assert distance(found, expected)[0] <= explained(model.session), f"on a prompt of {len(tokens)} tokens"
        if model.spec.context is not None:
            try:
                model.trace([*full, 0], capture="logits")
            except PromptError:
                return
            raise AssertionError("a prompt over the context was run")
