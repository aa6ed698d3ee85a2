"""Writing a trace to one file. The arrays go to disk one by one: no second copy of the trace is made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

import llmtrace
from llmtrace.edits import Edit
from llmtrace.errors import TraceFileError
from llmtrace.safetensors_header import LONGEST_HEADER
from llmtrace.schema.sites import Array
from llmtrace.store.atomic import replacing
from llmtrace.store.manifest import (
    DIGEST_KEY,
    DTYPES,
    FORMAT_VERSION,
    MANIFEST_KEY,
    EditEntry,
    Entry,
    Manifest,
    tensor_of,
)
from llmtrace.trace import Signal, Trace


def save(trace: Trace, path: str | Path) -> None:
    """Write a trace to one file, atomically: a failure leaves an older file as it was, and nothing else behind.

    Raises `TraceFileError` for a destination that cannot be written, and for a trace that the format cannot hold.
    """
    header, order = _header(trace, path)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in order:
            file.write(_plain(_array(trace, name)).data)


def _header(trace: Trace, path: str | Path) -> tuple[bytes, list[str]]:
    """The header, padded to a multiple of eight bytes, and the tensors' names in the order of their data.

    Wide types come first, so that every tensor starts at a multiple of its element's size without a gap.
    """
    kinds = {site: (_dtype(signal, path), signal.shape, signal.bytes) for site, signal in trace.signals.items()}
    kinds |= {
        tensor_of(place): (DTYPES["float64"], edit.value.shape, edit.value.nbytes)
        for place, edit in enumerate(trace.edits)
        if edit.value is not None
    }
    widths = {DTYPES[name]: np.dtype(name).itemsize for name in DTYPES}
    order = sorted(kinds, key=lambda name: -widths[kinds[name][0]])
    tensors, place = {}, 0
    for name in order:
        dtype, shape, size = kinds[name]
        tensors[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    manifest = _manifest(trace, path)
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    metadata = {MANIFEST_KEY: manifest, DIGEST_KEY: digest}
    header = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    if len(header) > LONGEST_HEADER:
        raise TraceFileError(
            f"{path} cannot be written: its header has {len(header):,} bytes, over the format's {LONGEST_HEADER:,}."
        )
    return header + b" " * (-len(header) % 8), order


def _manifest(trace: Trace, path: str | Path) -> str:
    from llmtrace.store.records import to_json

    entries = tuple(_entry(signal) for signal in trace.signals.values())
    record = Manifest(
        FORMAT_VERSION,
        trace.schema_version,
        llmtrace.__version__,
        trace.model,
        trace.spec,
        trace.tokens,
        trace.positions,
        trace.selection,
        trace.given,
        tuple(map(_edit, trace.edits)),
        entries,
    )
    try:
        return json.dumps(to_json(record), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise TraceFileError(
            f"{path} cannot be written: what the trace says of its model is not JSON ({error})."
        ) from error


def _array(trace: Trace, name: str) -> Array:
    """What stands in the file under a name: a signal, or what an edit put into one."""
    if name in trace.signals:
        return trace.signals[name].array
    return next(
        edit.value for place, edit in enumerate(trace.edits) if edit.value is not None and tensor_of(place) == name
    )


def _edit(edit: Edit) -> EditEntry:
    if edit.value is None:
        return EditEntry(edit.pick, edit.op, None, "")
    return EditEntry(edit.pick, edit.op, edit.value.shape, hashlib.sha256(_plain(edit.value).data).hexdigest())


def _entry(signal: Signal) -> Entry:
    digest = hashlib.sha256(_plain(signal.array).data).hexdigest()
    return Entry(
        signal.site,
        signal.axes,
        signal.shape,
        signal.dtype.name,
        signal.provenance,
        signal.precision,
        signal.cut,
        digest,
    )


def _dtype(signal: Signal, path: str | Path) -> str:
    if signal.dtype.name not in DTYPES:
        raise TraceFileError(
            f"{path} cannot be written: {signal.site} is {signal.dtype.name}, and a signal may be {', '.join(DTYPES)}."
        )
    return DTYPES[signal.dtype.name]


def _plain(array: Array) -> Array:
    """The array's bytes as the format wants them: C order, little-endian; a copy only where they are not so already."""
    little = array if array.dtype.byteorder != ">" else array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8)
