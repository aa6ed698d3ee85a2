"""Whether a manifest means something: a spec whose sites exist, and signals that are what its spec says they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.schema.sites import INPUTS
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import Attention, DynamicNtk, LongRope, ModelSpec, Moe, Norm, Rotary
from llmtrace.store.header import Place, UnreadableError
from llmtrace.store.manifest import Entry, Manifest


def check_manifest(manifest: Manifest, places: Mapping[str, Place]) -> None:
    """Raises `UnreadableError` where the manifest contradicts itself or the file's header."""
    if not manifest.tokens:
        raise UnreadableError("it has no tokens")
    for token in manifest.tokens:
        if not 0 <= token.id < manifest.spec.vocab:
            raise UnreadableError(f"its token {token.id} is outside the vocabulary of {manifest.spec.vocab}")
    if len(manifest.positions) != len(manifest.tokens) or min(manifest.positions) < 0:
        raise UnreadableError("its positions are not one for each token")
    table = _table(manifest.spec)
    if foreign := [site for site in manifest.given if site not in table]:
        raise UnreadableError(f"{foreign[0]!r:.80}, which was taken as given, is no site of its model")
    if len({entry.site for entry in manifest.signals}) < len(manifest.signals):
        raise UnreadableError("it has two signals of one site")
    if {entry.site for entry in manifest.signals} != set(places):
        raise UnreadableError("its manifest and its header name different signals")
    for entry in manifest.signals:
        _check_entry(entry, table, places[entry.site], len(manifest.tokens))


def _check_entry(entry: Entry, table: Mapping[str, Step], place: Place, tokens: int) -> None:
    if entry.site not in table:
        raise UnreadableError(f"{entry.site!r:.80} is no site of its model")
    step = table[entry.site]
    if entry.axes != step.axes:
        raise UnreadableError(f"{entry.site} has the axes {' '.join(entry.axes)} instead of {' '.join(step.axes)}")
    if (entry.shape, entry.dtype) != (place.shape, place.dtype):
        raise UnreadableError(f"its manifest and its header describe {entry.site} differently")
    full = step.shape(tokens)
    if entry.cut is None:
        expected = full
    else:
        parts = entry.cut.indices
        if len(parts) != len(full) or any(
            part is not None and not all(0 <= index < size for index in part)
            for part, size in zip(parts, full, strict=True)
        ):
            raise UnreadableError(f"{entry.site} is cut where it has nothing")
        expected = entry.cut.shape(full)
    if entry.shape != expected:
        raise UnreadableError(f"{entry.site} has shape {list(entry.shape)} instead of {list(expected)}")


def _table(spec: ModelSpec) -> dict[str, Step]:
    """The sites of a spec, every part of which the equations can read."""
    for record in _records(spec):
        _check_record(record)
    try:
        table = steps(spec)
    except (KeyError, ValueError) as error:
        raise UnreadableError(f"its spec is not one of a model ({error})") from error
    for step in table.values():
        for name in step.inputs:
            if name not in table and name not in INPUTS:
                raise UnreadableError(
                    f"its spec is not one of a model: {step.site} reads {name!r:.80}, which does not exist"
                )
    return table


def _records(record: Any) -> list[Any]:
    """A record and all records in it."""
    found = [record]
    for row in attrs.fields(type(record)):
        value = getattr(record, row.name)
        for inner in value if isinstance(value, tuple) else (value,):
            if attrs.has(type(inner)):
                found += _records(inner)
    return found


def _check_record(record: Any) -> None:
    """The numbers that an equation divides by or looks up."""
    fault = ""
    for name, size in getattr(record, "sizes", {}).items():
        if size < 1:
            fault = f"{name} is {size}"
    act = getattr(record, "act", None)
    if act is not None and act not in ACTIVATIONS:
        fault = f"there is no activation {act!r:.40}"
    match record:
        case Attention() if record.kv_heads > 0 and record.heads % record.kv_heads:
            fault = f"{record.heads} heads cannot share {record.kv_heads}"
        case Attention(rotary=Rotary(width=width)) if not 0 < width <= record.d_head or width % 2:
            fault = f"{width} of {record.d_head} channels cannot be rotated"
        case Rotary(scaling=LongRope() as long) if {len(long.short), len(long.long)} != {record.width // 2}:
            fault = f"LongRoPE needs {record.width // 2} factors"
        case Rotary(scaling=DynamicNtk()) if record.width < 4:
            fault = "a dynamic base needs at least four channels"
        case Moe() if record.choices > record.experts:
            fault = f"{record.choices} of {record.experts} experts cannot be chosen"
        case Norm() if not record.over.split():
            fault = "a norm runs over no axis"
        case _:
            pass
    if fault:
        raise UnreadableError(f"its spec is not one of a model: {fault}")
