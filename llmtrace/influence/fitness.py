"""What can be asked of a method. **Refusal**: why a method, or a foil, or a lens, cannot be had of a model; known before a run."""

from __future__ import annotations

from collections.abc import Sequence

from llmtrace.errors import (
    CapabilityError,
    LLMTraceError,
    OptionError,
    PromptError,
    SignalUnavailableError,
    UnsupportedModelError,
    without_weights,
)
from llmtrace.influence.calling import Called
from llmtrace.influence.logit_lens import lens_sites
from llmtrace.influence.method import Method, Task
from llmtrace.model import Model
from llmtrace.plugins import plugins
from llmtrace.protocol import SupportsWeights
from llmtrace.selection import select
from llmtrace.tokens import token_of


def check_foil(methods: Sequence[Method]) -> None:
    """Raise `PromptError` if none of these methods takes a foil; the message names those that do."""
    if any(method.aims for method in methods):
        return
    takers = ", ".join(sorted(row.name for row in plugins().methods.values() if row.aims)) or "none that is installed"
    names = ", ".join(method.name for method in methods) or "the lens"
    raise PromptError(
        f"A foil is subtracted from a target, and no target enters {names}: the scores are the same whatever token is predicted. "
        f"Leave the foil out, or use a method that takes one: {takers}."
    )


def refusal(model: Model, method: Method) -> LLMTraceError | None:
    """Why a method cannot be had of this model, or None; found out without a run, by one token."""
    tokens = (token_of(0, model.tokenizer),)
    aim = tokens[0] if method.aims else None
    try:
        check_ability(model, method)
        task = Task(model.equations, tokens, 0, aim, None, tokens if method.predictions else ())
        fold = Called(method, task, plugins())
        model.plan(tokens, select(*fold.sites))
    except (CapabilityError, SignalUnavailableError, UnsupportedModelError) as error:
        return error
    return None


def lens_refusal(model: Model) -> LLMTraceError | None:
    """Why the logit lens cannot be had of this model, or None."""
    try:
        check_top(model, 1)
        model.plan((token_of(0, model.tokenizer),), select(*lens_sites(model.equations)))
    except (CapabilityError, SignalUnavailableError) as error:
        return error
    return None


def check_ability(model: Model, method: Method) -> None:
    """Raise `CapabilityError` if the method reads weights and the backend does not."""
    if "W" in method.needs.split():
        _check_weights(model, f"The method {method.name}")


def _check_weights(model: Model, reader: str) -> None:
    if not isinstance(model.session, SupportsWeights):
        raise without_weights(f"{reader} reads weights, and the backend {model.info.backend} does not")


def check_top(model: Model, top: int) -> None:
    """Raise `CapabilityError` if the lens has no weights to read, `OptionError` if it cannot show that many tokens."""
    _check_weights(model, "The logit lens")
    if not 1 <= top <= model.spec.predicted:
        raise OptionError(f"The lens shows between 1 and {model.spec.predicted} tokens (the vocabulary), not {top}.")
