"""Makes verdicts: of a model that is run for it, or of a saved trace. What could not be judged is in them too, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llmtrace.cli.options import Asked, Opening, Out
from llmtrace.cli.verdicts import Verdicts
from llmtrace.errors import PromptError, SignalUnavailableError
from llmtrace.schema.verify import LocalError
from llmtrace.trace import Token, Trace

if TYPE_CHECKING:
    from llmtrace.model import Model

PROMPT = "When Mary and John went to the store, John gave a drink to Mary. When Mary and"
"""The built-in prompt."""
ITSELF = "The reference backend runs by the equations themselves: only NaN, infinity or a broken file can violate them."
IDS = 12
"""How many ids stand in for it where the model has no tokenizer, or one that cannot read it."""


def of_model(opening: Opening, asked: Asked, out: Out) -> Verdicts:
    """Open a model, run it over a prompt and judge it. Raises `SignalUnavailableError` if nothing could be judged."""
    from llmtrace.cli.asking import read_prompt
    from llmtrace.cli.opening import open_model

    with open_model(opening, out) as model:
        tokens = model.tokens(read_prompt(asked)) if asked.given else default_prompt(model)
        return check_model(model, tokens)


def check_model(model: Model, tokens: tuple[Token, ...]) -> Verdicts:
    """Judge an open model. Raises `SignalUnavailableError` if nothing could be judged."""
    from llmtrace.cli.availability import availability

    found = {each.site: each for each in model.verify([token.id for token in tokens])}
    for site, how in availability(model).items():
        if site not in found and how.kind == "unavailable":
            found[site] = _not_judged(site, "unavailable", how.reason)
        elif site not in found:
            derived = f"derived from {how.reason}: it agrees by construction"
            found[site] = _not_judged(
                site, "unchecked", derived if how.kind == "derived" else "recorded on request only"
            )
    notes = model.info.notes + (ITSELF,) * (model.info.backend == "reference")
    return _something(Verdicts(model.info, tokens, tuple(found[site] for site in model.equations.steps), notes))


def of_trace(opening: Opening, origin: str | None, out: Out) -> Verdicts:
    """Load a trace and judge it, with its model's weights where they can be had. Raises as `of_model`, and `TraceFileError`."""
    from llmtrace.cli.output import say
    from llmtrace.cli.saved import with_weights
    from llmtrace.trace import load

    with with_weights(load(opening.model), opening, origin, out) as (trace, missing):
        for note in trace.model.notes:
            say(out, f"note: {note}")
        found = {each.site: each for each in trace.verify()}
        sites = tuple(found.get(site) or _outside(trace, site) for site in trace.equations.steps)
        return _something(Verdicts(trace.model, trace.tokens, sites, (*trace.model.notes, *filter(None, [missing]))))


def default_prompt(model: Model) -> tuple[Token, ...]:
    """The built-in prompt, within the model's context; ids where the model cannot read it."""
    try:
        return model.tokens(PROMPT)
    except PromptError:
        count = min(IDS, model.spec.context or IDS)
        return model.tokens([place * 7919 % model.spec.vocab for place in range(count)])


def _outside(trace: Trace, site: str) -> LocalError:
    """Why a saved trace gives no verdict on a site."""
    signal = trace.signals.get(site)
    if signal is None:
        return _not_judged(site, "unavailable", "not in this trace")
    reason = (
        f"{signal.provenance}: it agrees by construction"
        if signal.provenance.kind == "derived"
        else "recorded in part only"
    )
    return _not_judged(site, "unchecked", reason)


def _not_judged(site: str, status: Literal["unchecked", "unavailable"], reason: str) -> LocalError:
    return LocalError(site, status, 0.0, 0.0, 0.0, (site,), reason)


def _something(verdicts: Verdicts) -> Verdicts:
    if not verdicts.judged:
        why = next((each.reason for each in verdicts.sites if each.status == "unchecked"), "no signal was handed out")
        raise SignalUnavailableError(f"Nothing could be checked in {verdicts.model.source}: {why}")
    return verdicts
