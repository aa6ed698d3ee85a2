"""Where weights lie that are not in the graph. **External data**: a file, an offset and a length that a tensor names; **base**: the one
directory that all of these files are then named from.

A location is a stranger's text. It is resolved, links and all, and has to end inside the directory of the model: the one that the
`.onnx` file is in, or, where that is a link, the one that it leads to (the cache of the Hugging Face hub keeps a model's files as links
into one directory). What it ends at is then opened by onnx's own check, which knows hard links too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import onnx
from attrs import frozen
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown

BITS: dict[int, int] = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
}
"""Of the types of which a byte holds several."""
FETCH = "Fetch the model's files again, all of them into one directory."


@frozen
class Place:
    """Where a tensor's bytes lie."""

    file: Path
    """Without links."""
    offset: int
    length: int


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: weights, constants, and those of the graphs inside."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inside in (attribute.g, *attribute.graphs):
                if inside.ByteSize():
                    yield from tensors_of(inside)


def place_all(tensors: Iterable[onnx.TensorProto], path: Path, own: frozenset[str]) -> Path:
    """Check every tensor's size and place, and name all files from one directory, which is returned.

    `own` are the names of those that are in the `.onnx` file. Raises `ModelOpenError` that names the tensor.
    """
    placed = []
    for tensor in tensors:
        size = _size(tensor, path)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            inside = tensor.name in own and not any(entry.key == "location" for entry in tensor.external_data)
            placed.append((tensor, _place(tensor, path, size, inside=inside)))
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != size:
            raise _bad(tensor, path, f"it has {len(tensor.raw_data)} bytes, and its shape and type make {size}")
    parents = {place.file.parent for _, place in placed} or {path.resolve().parent}
    base = Path(os.path.commonpath(parents))
    for tensor, place in placed:
        del tensor.external_data[:]
        for key, value in (
            ("location", place.file.relative_to(base).as_posix()), ("offset", place.offset), ("length", place.length)
        ):  # fmt: skip
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return base


def place_of(tensor: onnx.TensorProto, base: Path) -> Place:
    """The place of a tensor that `place_all` has seen."""
    found = {entry.key: entry.value for entry in tensor.external_data}
    return Place(base / found["location"], int(found["offset"]), int(found["length"]))


def _size(tensor: onnx.TensorProto, path: Path) -> int:
    """Bytes that a tensor's shape and type make."""
    if any(length < 0 for length in tensor.dims):
        raise _bad(tensor, path, f"its shape is {list(tensor.dims)}")
    count: int = prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.HasField("raw_data"):
            raise _bad(tensor, path, "text is not kept as raw bytes")
        return 0
    if tensor.data_type in BITS:
        return -(-count * BITS[tensor.data_type] // 8)
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError, TypeError) as error:
        raise _bad(tensor, path, f"its type, {tensor.data_type}, is none that onnx {onnx.__version__} knows") from error


def _place(tensor: onnx.TensorProto, path: Path, size: int, *, inside: bool) -> Place:
    try:
        info = ExternalDataInfo(tensor)
    except ValueError as error:
        raise _bad(tensor, path, str(error)) from error
    file = path.resolve() if inside else _file(tensor, path, info.location)
    given: tuple[int | None, int | None] = (info.offset, info.length)
    offset, there = given[0] or 0, file.stat().st_size
    length = there - offset if given[1] is None else given[1]
    if length != size:
        raise _bad(
            tensor, path, f"{length} bytes are kept for it, and its shape {list(tensor.dims)} and type make {size}"
        )
    if offset + length > there:
        raise _bad(tensor, path, f"{file.name} ends at byte {there}, and it is from {offset} to {offset + length}")
    return Place(file, offset, length)


def _file(tensor: onnx.TensorProto, path: Path, location: str) -> Path:
    """The file that a location leads to, without links. Raises `ModelOpenError` where that is outside of the model's directory."""
    where = Path(location)
    if not location or "\0" in location or where.is_absolute() or where.drive:
        raise _bad(tensor, path, f"its location is {shown(location)}, and should be a relative path")
    try:
        found = (path.parent / where).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError in some versions of Python
        raise _bad(tensor, path, f"its file {shown(location)} is missing, or cannot be read") from error
    roots = [path.parent.resolve(), path.resolve().parent]
    root = next((root for root in roots if found.is_relative_to(root)), None)
    if root is None:
        raise UnsupportedModelError(
            f"{path}: the weight {shown(tensor.name)} is kept at {shown(location)}, which leads out of the model's directory, to {found}. "
            "A model may not read other files: copy the file into the directory, and name it there, if you trust it."
        )
    seen = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", found.relative_to(root).as_posix()), ("offset", "0"), ("length", "0")):
        entry = seen.external_data.add()
        entry.key, entry.value = key, value
    try:
        load_external_data_for_tensor(seen, str(root))  # no byte of it: only whether it may be opened
    except Exception as error:  # onnx has its own kinds, some of them only in its C++ half
        raise UnsupportedModelError(
            f"{path}: the file {shown(location)} of the weight {shown(tensor.name)} is refused by onnx ({_said(error)}). Put a plain copy "
            "of it there, if you trust it."
        ) from error
    return found


def _said(error: Exception) -> str:
    return str(error).strip().rstrip(".")


def _bad(tensor: onnx.TensorProto, path: Path, why: str) -> ModelOpenError:
    return ModelOpenError(f"{path}: the weight {shown(tensor.name)} cannot be read: {why.rstrip('.')}. {FETCH}")
