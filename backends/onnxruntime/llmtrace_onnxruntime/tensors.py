"""The numbers that are in the file, read on access. Weights by the name of the initializer, constants by the name of the value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from llmtrace.errors import ModelOpenError, shown
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.external import BITS, place_of


class Tensors(Mapping[str, Array]):
    """Initializers and `Constant` values of a graph, as in the file, read-only; large ones are mapped, not copied."""

    def __init__(self, graph: onnx.GraphProto, base: Path) -> None:
        """`base` is what locations are relative to."""
        self._base = base
        self._protos = {tensor.name: tensor for tensor in graph.initializer}
        self._others: dict[str, Array] = {}
        self._files: dict[Path, Array] = {}
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and node.output:
                self._constant(node)

    @cached_property
    def stored(self) -> Mapping[str, str]:
        """The type of each: `float32`, `bfloat16`, `uint4`."""
        return {name: dtype_of(proto.data_type).name for name, proto in self._protos.items()} | {
            name: value.dtype.name for name, value in self._others.items()
        }

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each; no number is read."""
        return {name: tuple(proto.dims) for name, proto in self._protos.items()} | {
            name: value.shape for name, value in self._others.items()
        }

    def __getitem__(self, name: str) -> Array:
        """Raises `KeyError` for another name, `ModelOpenError` for a file that has changed since."""
        if name in self._others:
            return self._others[name]
        proto = self._protos[name]
        try:
            array = self._read(proto)
        except (OSError, ValueError, TypeError) as error:
            raise ModelOpenError(f"The weight {shown(name)} cannot be read: {error}. Fetch the model again.") from error
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        yield from self._protos
        yield from self._others

    def __len__(self) -> int:
        return len(self._protos) + len(self._others)

    def packed(self, name: str) -> tuple[Array, int] | None:
        """The bytes of an initializer outside of the graph, mapped, and its type as ONNX numbers it; None for one that is inside."""
        proto = self._protos[name]
        return (self._bytes(proto), proto.data_type) if proto.data_location == onnx.TensorProto.EXTERNAL else None

    def _read(self, proto: onnx.TensorProto) -> Array:
        if proto.data_location != onnx.TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(proto))
        raw = self._bytes(proto)
        if proto.data_type in BITS:
            inside = onnx.TensorProto(
                name=proto.name, data_type=proto.data_type, dims=proto.dims, raw_data=raw.tobytes()
            )
            return np.asarray(numpy_helper.to_array(inside))
        return raw.view(dtype_of(proto.data_type)).reshape(tuple(proto.dims))

    def _bytes(self, proto: onnx.TensorProto) -> Array:
        place = place_of(proto, self._base)
        if not place.length:
            return np.empty(0, np.uint8)
        if place.file not in self._files:
            self._files[place.file] = np.memmap(place.file, np.uint8, "r")
        return np.asarray(self._files[place.file][place.offset : place.offset + place.length])

    def _constant(self, node: onnx.NodeProto) -> None:
        """The value of a `Constant`, whichever of its attributes it is in."""
        name = node.output[0]
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = onnx.TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = name
                self._protos[name] = tensor
            elif attribute.name in {"value_int", "value_ints"}:
                self._others[name] = np.array(onnx.helper.get_attribute_value(attribute), np.int64)
            elif attribute.name in {"value_float", "value_floats"}:
                self._others[name] = np.array(onnx.helper.get_attribute_value(attribute), np.float32)


def dtype_of(kind: int) -> np.dtype[np.generic]:
    """NumPy's type of an ONNX type; of `ml_dtypes` where NumPy has none."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
