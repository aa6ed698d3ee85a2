"""An ONNX file, opened and held to what ONNX Runtime can read; no weight is loaded. **Base**: the directory that locations of weights are
relative to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import attrs
import onnx
from attrs import frozen
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from llmtrace.errors import ModelOpenError, OptionError, UnsupportedModelError, shown
from llmtrace.fingerprint import fingerprint
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.branches import in_one_piece
from llmtrace_onnxruntime.choosing import CONFIG, GENAI, choose, config
from llmtrace_onnxruntime.external import place_all, place_of, tensors_of
from llmtrace_onnxruntime.flow import reads
from llmtrace_onnxruntime.known import check_known
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.tensors import Tensors
from llmtrace_onnxruntime.wire import WireError, lean

OTHERS = {
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself (git lfs pull)",
    b"PK\x03\x04": "an archive",
    b"<": "a page of markup",
    b"{": "JSON",
    b"ORTM": "ONNX Runtime's own format, ORT (convert it from the .onnx file again)",
}
"""What files that are taken for models begin with; `ORTM` stands at byte 4."""
FETCH = "Fetch or export it again."


@frozen(eq=False, slots=False)
class Loaded:
    """An open model."""

    path: Path
    """The `.onnx` file, as it was named."""
    base: Path
    """What the locations of weights in `proto` are relative to."""
    proto: onnx.ModelProto = attrs.field(repr=False)
    """The graph, without weights of over 4 KB, functions, and branches that an input chooses. Nobody writes to it: `copy()` it."""
    tensors: Tensors = attrs.field(repr=False)
    """The numbers of initializers and `Constant` nodes by name, read on access."""
    genai: Mapping[str, Any] = attrs.field(repr=False)
    """`genai_config.json` beside it; empty where there is none. It never speaks for the graph."""
    config: Mapping[str, Any] = attrs.field(repr=False)
    """`config.json` beside it, likewise."""
    custom_ops: tuple[Path, ...] = ()
    """Libraries of operators that the user named."""
    notes: tuple[str, ...] = ()
    """Which file was chosen, and what of its graph is run."""

    @property
    def graph(self) -> onnx.GraphProto:
        """The graph of `proto`."""
        return self.proto.graph

    def copy(self) -> onnx.ModelProto:
        """A `proto` to write to."""
        copied = onnx.ModelProto()
        copied.CopyFrom(self.proto)
        return copied

    def tensor(self, name: str) -> Array:
        """The numbers of one initializer or constant, read-only. Raises `KeyError` for another name."""
        return self.tensors[name]

    @cached_property
    def fingerprint(self) -> str:
        """Which model this is: a digest of the graph and of the files that its weights are in (`llmtrace.fingerprint`)."""
        external = [tensor for tensor in tensors_of(self.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]
        return fingerprint({self.path.resolve(), *(place_of(tensor, self.base).file for tensor in external)})


def load(source: str | Path, options: OnnxRuntimeOptions | None = None) -> Loaded:
    """Open an `.onnx` file, or the one that a directory means.

    Raises `ModelOpenError`, or `UnsupportedModelError` for what ONNX Runtime does not know or may not read, with the culprit and the fix.
    """
    options = options or OnnxRuntimeOptions()
    path, chosen = choose(Path(source).expanduser(), options.file)
    custom_ops = _libraries(options.custom_ops)
    raw, own = _read(path)
    try:
        proto = onnx.ModelProto.FromString(raw)
    except (DecodeError, RecursionError, ValueError) as error:
        raise ModelOpenError(f"{path} is not an ONNX model, or was cut off ({error}). {FETCH}") from error
    if not proto.ir_version or not proto.opset_import or not proto.graph.node:
        lacking = "no graph" if not proto.graph.node else "no version"
        raise ModelOpenError(f"{path} is not an ONNX model, or an empty one: it has {lacking}. {FETCH}")
    _once(proto.graph, path)
    _in_order(proto.graph, path)
    check_known(proto, path, custom_ops)
    proto, notes = in_one_piece(proto, path)
    try:
        base = place_all(tensors_of(proto.graph), path, own)
        tensors = Tensors(proto.graph, base)
    except (ValueError, TypeError, RecursionError) as error:  # what contradicts itself; bytes that are no text
        raise ModelOpenError(f"{path}: its weights and constants cannot be read: {error}. {FETCH}") from error
    notes = ((chosen,) if chosen else ()) + notes
    return Loaded(path, base, proto, tensors, config(path, GENAI), config(path, CONFIG), custom_ops, notes)


def _read(path: Path) -> tuple[bytes, frozenset[str]]:
    """The file's bytes without its large weights, and the names of these."""
    try:
        with path.open("rb") as file:
            begin = file.read(32)
            if not begin:
                raise ModelOpenError(f"{path} is empty. {FETCH}")
            for magic, kind in OTHERS.items():
                if begin.startswith(magic) or begin[4:8] == magic:
                    raise ModelOpenError(f"{path} is {kind}, not an ONNX model.")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as buffer:
                return lean(buffer)
    except WireError as error:
        raise ModelOpenError(f"{path} is not an ONNX model, or was cut off ({error}). {FETCH}") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelOpenError(f"{path} cannot be read: {why}.") from error


def _once(graph: onnx.GraphProto, path: Path) -> None:
    """Raise for a name that is given twice, or a graph without outputs."""
    if (damaged := next((name for name in _names(graph) if isinstance(name, bytes)), None)) is not None:
        raise ModelOpenError(f"{path} is damaged: the name {shown(damaged)} is not UTF-8. {FETCH}")
    seen = set()
    for name in [
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output if name),
    ]:
        if name in seen:
            raise ModelOpenError(f"{path} contradicts itself: the value {shown(name)} is made twice. {FETCH}")
        seen.add(name)
    fed = {value.name for value in graph.input}
    if not graph.output or any(value.name not in seen | fed for value in graph.output):
        lost = next((shown(value.name) for value in graph.output if value.name not in seen | fed), "any output")
        raise UnsupportedModelError(f"{path}: no node makes {lost}. {FETCH}")


def _in_order(graph: onnx.GraphProto, path: Path) -> None:
    """Put nodes after those whose values they read, where they are not. Raises `ModelOpenError` for a circle."""
    made = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    before = {at: {made[name] for name in reads(node) if name in made} for at, node in enumerate(graph.node)}
    if all(at > max(others, default=-1) for at, others in before.items()):
        return
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        at = error.args[1][0]
        name = shown(graph.node[at].output[0])
        raise ModelOpenError(f"{path} contradicts itself: the value {name} is made of itself. {FETCH}") from error
    nodes = [onnx.NodeProto.FromString(graph.node[at].SerializeToString()) for at in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """Every name in a graph, and in those inside of it."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for tensor in tensors_of(graph):
        yield from (entry.value for entry in tensor.external_data)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for inside in (attribute.g, *attribute.graphs):
                if inside.node:
                    yield from _names(inside)


def _libraries(named: str | None) -> tuple[Path, ...]:
    paths = tuple(Path(each).expanduser() for each in (named or "").split(os.pathsep) if each)
    for path in paths:
        if not path.is_file():
            raise OptionError(f"The option custom_ops names {path}, which is no file.")
    return paths
