"""**Graph**: an ONNX graph while it is being made. A value is known by its name, which says nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.writing.blocks import BITS, BLOCK, levels, packed
from llmtrace_onnxruntime.writing.stored import Weights, is_large
from llmtrace_onnxruntime.writing.style import MICROSOFT, Attributes, Style

NONE: Attributes = {}


class Graph:
    """Names values, keeps nodes and constants. What it computes in is float32, or float16 where that is the kind."""

    def __init__(self, weights: Weights, kind: str, style: Style) -> None:
        self.weights, self.kind, self.style = weights, kind, style
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.dtype = np.dtype(np.float16 if kind == "float16" else np.float32)
        self._made: dict[Hashable, str] = {}
        self._values = 0

    @property
    def element(self) -> int:
        """ONNX's number of the type that it computes in."""
        return int(helper.np_dtype_to_tensor_dtype(self.dtype))

    def op(self, name: str, *inputs: str, attributes: Attributes = NONE) -> str:
        """A node with one output, which is returned. `name` may have its domain in front; an empty input is left out."""
        return self.ops(name, *inputs, attributes=attributes)[0]

    def ops(self, name: str, *inputs: str, places: Sequence[int] = (0,), attributes: Attributes = NONE) -> list[str]:
        """A node of whose outputs those at `places` are wanted, which are returned."""
        domain, _, kind = name.rpartition(".")
        outputs = [""] * (max(places) + 1)
        for place in places:
            self._values += 1
            outputs[place] = f"value_{self._values}"
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        self.nodes.append(
            helper.make_node(kind, given, outputs, f"node_{len(self.nodes)}", domain=domain or None, **attributes)  # type: ignore[arg-type]
        )
        return [outputs[place] for place in places]

    def once(self, key: Hashable, make: Callable[[], str]) -> str:
        """A value that several places need: made by the first."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def constant(self, array: Array) -> str:
        """An array as it is."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def number(self, value: float, dtype: type[np.generic] | None = None) -> str:
        """One number, of the type that is computed in or another."""
        kind = np.dtype(dtype or self.dtype)
        return self.once((value, kind.name), lambda: self.constant(np.asarray(value, kind)))

    def integers(self, *values: int) -> str:
        """A list of whole numbers: axes, shapes."""
        return self.once(values, lambda: self.constant(np.asarray(values, np.int64)))

    def vector(self, array: Array) -> str:
        """Numbers in the type that is computed in."""
        return self.constant(array.astype(self.dtype))

    def weight(self, name: str) -> str:
        """A weight in the schema's shape."""
        return self.once(name, lambda: self.vector(self.weights[name]))

    def up(self, x: str) -> str:
        """In float32, for what is not computed in less."""
        return self.op("Cast", x, attributes={"to": onnx.TensorProto.FLOAT}) if self.dtype == np.float16 else x

    def down(self, x: str) -> str:
        """From float32 to what is computed in."""
        return self.op("Cast", x, attributes={"to": self.element}) if self.dtype == np.float16 else x

    def reshape(self, x: str, *shape: int) -> str:
        """In another shape: 0 is as it is, -1 what is left."""
        return self.op("Reshape", x, self.integers(*shape))

    def linear(self, x: str, *names: str) -> str:
        """`x @ W + b`: several weights side by side, each with its bias `b_…` where it has one."""
        quantised = self.kind == "int4" and is_large(names[0])
        matrix = np.concatenate([self.weights.matrix(name) for name in names], axis=1)
        y = self._by_blocks(x, matrix) if quantised else self.op("MatMul", x, self.vector(matrix))
        biases = [bias for name in names if (bias := bias_of(name)) in self.weights]
        if not biases:
            return y
        return self.op("Add", y, self.vector(np.concatenate([self.weights[bias].reshape(-1) for bias in biases])))

    def each(self, x: str, name: str) -> str:
        """`x @ W[expert] + b[expert]` for every expert, [expert token out]; `x` is of all experts or one for each."""
        matrices, bias = self.weights.matrix(name), bias_of(name)
        if self.kind == "int4":
            own = [
                self.op("Gather", x, self.number(e, np.int64)) if name.endswith("W_out") else x
                for e in range(len(matrices))
            ]
            parts = [self._by_blocks(one, matrix) for one, matrix in zip(own, matrices, strict=True)]
            y = self.op(
                "Concat", *[self.op("Unsqueeze", part, self.integers(0)) for part in parts], attributes={"axis": 0}
            )
        else:
            y = self.op("MatMul", x, self.vector(matrices))
        return self.op("Add", y, self.vector(self.weights[bias][:, None])) if bias in self.weights else y

    def _by_blocks(self, x: str, matrix: Array) -> str:
        found, scales = levels(matrix)
        return self.by_blocks(x, matrix.shape, self.constant(packed(found)), self.constant(scales))

    def by_blocks(self, x: str, shape: Sequence[int], levels: str, scales: str) -> str:
        """`x` times a matrix of four bits, [in, out]."""
        sizes = {"K": shape[0], "N": shape[1], "bits": BITS, "block_size": BLOCK}
        return self.op(f"{MICROSOFT}.MatMulNBits", x, levels, scales, attributes=sizes)

    def rename(self, value: str, name: str) -> None:
        """Give the value of the last node a name of its own."""
        assert self.nodes[-1].output[0] == value  # noqa: S101  nothing reads it yet
        self.nodes[-1].output[0] = name


def bias_of(name: str) -> str:
    """The name of a weight's bias, if it has one: `blocks.0.attn.b_Q`."""
    part, _, last = name.rpartition(".")
    return f"{part}.b_{last.removeprefix('W_')}"
