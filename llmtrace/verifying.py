"""A whole model, or a saved trace, held against its own equations. **Verdicts**: one for every site; those that could not be judged say
why. **Left out**: a signal that the runtime handed out and that no equation could be held against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from llmtrace.availability import availability
from llmtrace.documents import number, token_document
from llmtrace.errors import PromptError, SignalUnavailableError
from llmtrace.model import Model, Prompt
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.sites import INPUTS
from llmtrace.schema.steps import any_layer
from llmtrace.schema.verify import LocalError
from llmtrace.trace import ModelInfo, Token, Trace
from llmtrace.words import counted

PROMPT = "When Mary and John went to the store, John gave a drink to Mary. When Mary and"
"""The built-in prompt."""
IDS = 12
"""How many ids stand in for it where the model has no tokenizer, or one that cannot read it."""
ABSENT = "not in this trace"
"""Why a saved trace says nothing about most sites."""
ITSELF = "The reference backend runs by the equations themselves: only NaN, infinity or a broken file can violate them."


@frozen
class Verdicts:
    """One verdict a site, in dataflow order."""

    model: ModelInfo
    """Which model, on which runtime."""
    tokens: tuple[Token, ...]
    """The prompt."""
    sites: tuple[LocalError, ...]
    """Every site of the model."""
    left_out: tuple[str, ...] = ()
    """The signals that were handed out and could not be judged."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""

    @property
    def violated(self) -> list[LocalError]:
        """The violated sites; the first is where a fault entered."""
        return [each for each in self.sites if each.status == "violated"]

    @property
    def judged(self) -> list[LocalError]:
        """The sites that have a verdict."""
        return [each for each in self.sites if each.status in ("holds", "violated")]

    @property
    def verdict(self) -> Literal["holds", "violated"]:
        """Of all that was judged."""
        return "violated" if self.violated else "holds"

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace verify --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model.source,
            "backend": self.model.backend,
            "preset": self.model.preset,
            "notes": list(self.notes),
            "tokens": [token_document(token) for token in self.tokens],
            "verdict": self.verdict,
            "first_violated": self.violated[0].site if self.violated else None,
            "left_out": list(self.left_out),
            "sites": [verdict_document(each) for each in self.sites],
        }


def verify_model(model: Model, prompt: Prompt | None = None) -> Verdicts:
    """Run an open model over one prompt (default: `default_prompt`) and judge it.

    Raises `SignalUnavailableError` if nothing could be judged, and as `Model.trace` does.
    """
    tokens = default_prompt(model) if prompt is None else model.tokens(prompt)
    captured = {each.site: each for each in model.verify([token.id for token in tokens])}
    found = dict(captured)
    for site, how in availability(model).items():
        if site not in found and how.kind == "unavailable":
            found[site] = _not_judged(site, "unavailable", how.reason)
        elif site not in found:
            derived = f"derived from {how.reason}: it agrees by construction"
            found[site] = _not_judged(
                site, "unchecked", derived if how.kind == "derived" else "recorded on request only"
            )
    notes = (ITSELF,) if model.info.backend == "reference" else ()
    return _verdicts(model.info, tokens, captured, tuple(found[site] for site in model.equations.steps), notes)


def verify_trace(trace: Trace, notes: tuple[str, ...] = (), *, name: str = "") -> Verdicts:
    """Judge a saved trace, with its model's weights if it has any (`open_origin`). Raises as `verify_model`; `name` is its file's."""
    captured = {each.site: each for each in trace.verify()}
    sites = tuple(captured.get(site) or _outside(trace, site) for site in trace.equations.steps)
    whose = f"{name or 'this trace'} (a trace of {trace.model.source})"
    return _verdicts(trace.model, trace.tokens, captured, sites, notes, whose, _also(trace, captured))


def default_prompt(model: Model) -> tuple[Token, ...]:
    """The built-in prompt, within the model's context; ids where the model cannot read it."""
    try:
        return model.tokens(PROMPT)
    except PromptError:
        count = min(IDS, model.spec.context or IDS)
        return model.tokens([place * 7919 % model.spec.vocab for place in range(count)])


def reason_of(each: LocalError) -> str:
    """What a verdict's numbers do not say, in words; empty where they say it all."""
    return each.reason or ("" if math.isfinite(each.worst_token_error) else "is not zero where its equation gives zero")


def _verdicts(
    info: ModelInfo,
    tokens: tuple[Token, ...],
    captured: Mapping[str, LocalError],
    sites: tuple[LocalError, ...],
    notes: tuple[str, ...],
    whose: str = "",
    advice: tuple[str, ...] = (),
) -> Verdicts:
    left = tuple(each for each in captured.values() if each.status == "unchecked")
    if all(each.status not in ("holds", "violated") for each in sites):
        why = next((each.reason for each in sites if each.status == "unchecked"), "no signal was handed out")
        raise SignalUnavailableError(
            " ".join([f"Nothing could be checked in {whose or info.source}: {why.rstrip('.')}.", *advice, *notes])
        )
    unjudged = (f"{not_judged(len(left))}, {'the first ' * (len(left) > 1)}because {_told(left[0])}",) if left else ()
    return Verdicts(info, tokens, sites, tuple(each.site for each in left), info.notes + unjudged + notes)


def not_judged(count: int) -> str:
    """`1 captured signal could not be judged`"""
    return f"{counted(count, 'captured signal')} could not be judged"


def _told(each: LocalError) -> str:
    """Why a site has no verdict, with its name."""
    return each.reason if each.site in each.reason else f"{each.site} {each.reason}"


def _also(trace: Trace, captured: Mapping[str, LocalError]) -> tuple[str, ...]:
    """What to record beside what a trace holds, so that it can be judged: the inputs that its signals lack."""
    steps = trace.equations.steps
    lacking = [name for site in captured for name in steps[site].inputs if name not in INPUTS and name not in trace]
    kinds = dict.fromkeys(any_layer(name).replace("blocks.L.", "blocks.*.") for name in lacking)
    return (f"Record also {', '.join(kinds)} (--capture), or all sites.",) if kinds else ()


def _outside(trace: Trace, site: str) -> LocalError:
    """Why a saved trace gives no verdict on a site."""
    signal = trace.signals.get(site)
    if signal is None:
        return _not_judged(site, "unavailable", ABSENT)
    made = f"{signal.provenance}: it agrees by construction"
    return _not_judged(
        site, "unchecked", made if signal.provenance.kind == "derived" else f"recorded in part only ({signal.part})"
    )


def _not_judged(site: str, status: Literal["unchecked", "unavailable"], reason: str) -> LocalError:
    return LocalError(site, status, 0.0, 0.0, 0.0, (site,), reason)


def verdict_document(each: LocalError) -> dict[str, Any]:
    """One verdict, as documents say it."""
    judged = each.status in ("holds", "violated")
    return {
        "site": each.site,
        "status": each.status,
        "relative_error": number(each.relative_error) if judged else None,
        "worst_token_error": number(each.worst_token_error) if judged else None,
        "tolerance": each.tolerance if judged else None,
        "reason": reason_of(each),
    }
