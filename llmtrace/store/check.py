"""Whether a manifest means something: a spec whose sites exist, and signals that are what its spec says they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmtrace.edits import Edit, changes
from llmtrace.errors import LLMTraceError, ModelOpenError
from llmtrace.schema.sound import sound
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import ModelSpec
from llmtrace.store.header import Place, UnreadableError
from llmtrace.store.manifest import Entry, Manifest, tensor_of


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
    operands = _check_edits(manifest, table, places)
    if {entry.site for entry in manifest.signals} | operands != set(places):
        raise UnreadableError("its manifest and its header name different signals")
    for entry in manifest.signals:
        _check_entry(entry, table, places[entry.site], len(manifest.tokens))


def _check_edits(manifest: Manifest, table: Mapping[str, Step], places: Mapping[str, Place]) -> set[str]:
    """The tensors that hold the operands of the edits."""
    operands: set[str] = set()
    edited: set[str] = set()
    for place, entry in enumerate(manifest.edits):
        name = tensor_of(place)
        if (entry.shape is None) != (entry.op == "zero"):
            raise UnreadableError(f"its edit {place} ({entry.op}) has an operand where it should have none, or none")
        if entry.shape is not None:
            if name not in places or (places[name].shape, places[name].dtype) != (entry.shape, "float64"):
                raise UnreadableError(f"its manifest and its header describe the edit {place} differently")
            operands.add(name)
        value = None if entry.shape is None else np.broadcast_to(np.float64(0), entry.shape)
        try:
            edited |= set(changes([Edit(entry.pick, entry.op, value)], table, len(manifest.tokens)))
        except LLMTraceError as error:
            raise UnreadableError(f"its edit {place} fits no site ({str(error).rstrip('.')})") from error
    if missing := sorted(edited - set(manifest.given)):
        raise UnreadableError(f"{missing[0]!r:.80} was edited, and counts as computed")
    return operands


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


def _table(spec: ModelSpec) -> Mapping[str, Step]:
    """The sites of a spec, every part of which the equations can read."""
    try:
        return steps(sound(spec, "its manifest"))
    except (ModelOpenError, KeyError, ValueError) as error:
        raise UnreadableError(f"its spec is not one of a model ({str(error).rstrip('.')})") from error
