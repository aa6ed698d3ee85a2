"""A dump becomes a trace, and is held against the model's equations at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import evolve

from llmtrace.comparison.sides import Given, Side, opened
from llmtrace.errors import SignalUnavailableError, shown
from llmtrace.importing.dump import Dump, open_dump
from llmtrace.importing.likely import likely
from llmtrace.importing.map import Names, read_map
from llmtrace.importing.placing import place, told
from llmtrace.importing.record import Imported, LeftOut
from llmtrace.importing.taking import signals_of, tokens_of
from llmtrace.model import Model, Prompt
from llmtrace.schema.steps import any_layer
from llmtrace.schema.verify import LocalError
from llmtrace.selection import select
from llmtrace.trace import ModelInfo, Trace
from llmtrace.verifying import Verdicts, verify_trace

FEW = 3
"""Kinds of names that a note tells of what was left out."""


def import_dump(
    dump: object,
    model: Given,
    prompt: Prompt | None = None,
    *,
    names: Names | str | Path | None = None,
    sequence: int | None = None,
    leave_out: bool = False,
) -> Imported:
    """Arrays that another tool recorded, as a trace that is held against its model's equations.

    `dump` is a TransformerLens `ActivationCache` or another mapping from names to arrays or torch tensors; or the path of a directory of
    `.npy` files, an `.npz` file or a `.safetensors` file. `model` is who the arrays are of: an open model, the name of one, or a trace of
    it. `prompt` is the text or the token ids that were recorded, where the dump does not hold them (`tokens`). Names are our sites,
    TransformerLens's hooks, or what the map `names` says: a TOML file, or a mapping from a name to a site or to a table of `site`, `axes`
    (`batch token (head d_head)`) and `factor`. Of a batch of several, `sequence` is the one to take, from 0. `leave_out` leaves arrays
    out whose names mean nothing here, instead of refusing them.

    What is found of each signal stands in `Imported.verdicts`, and of those that are not what the model computes, as after TransformerLens's
    default processing, in the trace's notes too. The weights stay at hand where `model` is open. Raises `DumpError` for a damaged dump,
    a name that means nothing, and arrays of other shapes than the model's; `PromptError`; and what opening the model raises.
    """
    written = read_map(names)  # what costs least is refused first
    held = open_dump(dump)
    with opened(model, "exact", check=False) as side:
        steps = side.equations.steps
        rows = written.of(len(side.spec.blocks))
        placing = place(held.name, list(held.arrays), rows, side.spec, steps, leave_out)
        tokens = tokens_of(held, placing.tokens, side, prompt, sequence)
        signals = signals_of(held, placing.rows, steps, len(tokens), sequence)
        trace = Trace(_info(side, held), side.spec, tokens, signals, select(*signals), side.equations.weights)
        verdicts, unchecked = _verdicts(trace, held.name)
        inherited: tuple[str, ...] = ()
        if verdicts is not None and verdicts.violated:
            verdicts, inherited = _explained(trace, verdicts)
        violated = [] if verdicts is None else verdicts.violated
        notes = (*trace.model.notes, *_notes(violated, inherited, placing.left_out))
        trace = evolve(trace, model=evolve(trace.model, notes=notes))
        if not isinstance(model, Model | Trace):  # closed with the model, which was opened here
            trace = trace.with_weights({})
    return Imported(held.name, trace, verdicts, unchecked, inherited, tuple(placing.left_out))


def _info(side: Side, held: Dump) -> ModelInfo:
    """How to open the model that the arrays are of; what computed them is not known."""
    info = side.info if side.trace is None else side.trace.model
    note = f"Imported from {held.name}: what computed it is not known."
    return ModelInfo(
        info.source, info.backend, "unknown", fingerprint=info.fingerprint, device="unknown", preset=info.preset,
        options=info.options, notes=(note,),
    )  # fmt: skip


def _verdicts(trace: Trace, name: str) -> tuple[Verdicts | None, str]:
    """The verdicts on a trace; or why there are none."""
    try:
        return verify_trace(trace, name=name), ""
    except SignalUnavailableError as error:
        return None, str(error)


def _explained(trace: Trace, verdicts: Verdicts) -> tuple[Verdicts, tuple[str, ...]]:
    """The verdicts with the likely reason of each that is violated; and the sites that hold, and are not the model's own."""
    found = likely(trace, verdicts)
    sites = tuple(evolve(each, reason=found.reasons.get(each.site, each.reason)) for each in verdicts.sites)
    return evolve(verdicts, sites=sites), tuple(found.inherited)


def _notes(violated: list[LocalError], inherited: tuple[str, ...], left_out: list[LeftOut]) -> Iterator[str]:
    """What a reader of the trace should know: what is not the model's, one note for each likely reason."""
    reasons: dict[str, list[str]] = {}
    for each in violated:
        reasons.setdefault(any_layer(each.reason), []).append(each.site)
    for reason, sites in reasons.items():
        yield f"Does not hold: {told(sites)}" + (f": {reason}." if reason else ".")
    if inherited:
        yield f"Holds, and is not the model's own, since what it reads is not: {told(inherited)}."
    if left_out:
        yield f"Left out: {told((shown(each.name) for each in left_out), FEW)}."
