"""Opening a saved trace. Nothing in the file is believed before it is checked, and nothing in it can run."""

from __future__ import annotations

import hashlib
from mmap import mmap
from pathlib import Path
from typing import Any

from llmtrace.edits import Edit
from llmtrace.errors import OptionError, SchemaVersionError, TraceFileError
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.store.check import check_manifest
from llmtrace.store.header import Place, UnreadableError, parse, read_header
from llmtrace.store.manifest import DIGEST_KEY, FORMAT_VERSION, MANIFEST_KEY, Manifest, tensor_of
from llmtrace.store.mapped import Mapped, map_file
from llmtrace.trace import Signal, Trace


def load(path: str | Path) -> Trace:
    """Open a saved trace. Signals stay in the file, memory-mapped; each one's digest is checked when it is first read.

    Raises `TraceFileError` that names the file and what is wrong with it, `SchemaVersionError` for a file of another version.
    """
    path = Path(path)
    try:
        metadata, places = read_header(path)
        manifest = _manifest(path, metadata)
        check_manifest(manifest, places)
    except UnreadableError as error:
        raise TraceFileError(f"{path} cannot be opened as a trace: {error}.") from error
    data = map_file(path)
    return Trace(
        manifest.model, manifest.spec, manifest.tokens, _signals(path, data, manifest, places), manifest.selection,
        given=manifest.given, edits=_edits(path, data, manifest, places), positions=manifest.positions, schema_version=manifest.schema_version,
    )  # fmt: skip


def _manifest(path: Path, metadata: dict[str, str]) -> Manifest:
    from llmtrace.store.records import from_json

    if MANIFEST_KEY not in metadata:
        raise UnreadableError("it is a safetensors file without a manifest, so not a trace")
    text = metadata[MANIFEST_KEY]
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != metadata.get(DIGEST_KEY):
        raise UnreadableError("its manifest was altered")
    value = parse(text, "the manifest")
    _check_version(path, value, "format_version", FORMAT_VERSION)
    _check_version(path, value, "schema_version", SCHEMA_VERSION)
    try:
        return from_json(value, Manifest)
    except ValueError as error:
        raise UnreadableError(str(error)) from error


def _check_version(path: Path, value: dict[str, Any], name: str, ours: int) -> None:
    theirs = value.get(name)
    if type(theirs) is not int:
        raise UnreadableError(f"its manifest has no {name}")
    if theirs != ours:
        writer = value.get("llmtrace")
        raise SchemaVersionError(
            f"{path} has {name} {theirs}, and this LLMTrace reads {ours}: it was written by version {writer!r:.40}. "
            "Trace the prompt again, or use that version."
        )


def _edits(path: Path, data: mmap, manifest: Manifest, places: dict[str, Place]) -> tuple[Edit, ...]:
    """The edits, with what they put there: read at once, for they are small."""
    found: list[Edit] = []
    for place, entry in enumerate(manifest.edits):
        name = tensor_of(place)
        value = None if entry.shape is None else Mapped(path, data, name, places[name], entry.sha256).read()
        try:
            found.append(Edit(entry.pick, entry.op, value))
        except OptionError as error:
            raise TraceFileError(f"{path} cannot be opened as a trace: its edit {place}: {error}") from error
    return tuple(found)


def _signals(path: Path, data: mmap, manifest: Manifest, places: dict[str, Place]) -> dict[str, Signal]:
    return {
        entry.site: Signal(
            entry.site, entry.axes, Mapped(path, data, entry.site, places[entry.site], entry.sha256), entry.provenance,
            entry.precision, entry.cut,
        )
        for entry in manifest.signals
    }  # fmt: skip
