"""A node of the graph that llama.cpp computes, as seen while it computes. **Leaf**: a tensor that nothing computes: a weight, an input
of the run, the cache. **Address**: where the tensor's record is; the same tensor has the same, within one run of the graph.

A node lives as long as the call that shows it. Its values may be read at one moment: when it is ready, since the memory is another
node's soon. Leaves may be read whenever they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array
from llmtrace_llamacpp.abi import INPUT, Api, Tensor

DTYPES: Mapping[int, Any] = {
    0: np.float32, 1: np.float16, 24: np.int8, 25: np.int16, 26: np.int32, 27: np.int64, 28: np.float64, 30: ml_dtypes.bfloat16,
}  # fmt: skip
"""ggml's types that are arrays of numbers; the others are blocks."""


class Pass:
    """One call of decode, as its nodes know it."""

    __slots__ = ("api", "live", "ready", "run")

    def __init__(self, api: Api) -> None:
        self.api = api
        self.live = True
        """Whether the call goes on."""
        self.ready: int | None = None
        """Address of the node that has just been computed."""
        self.run = 0
        """Which run of the graph this is."""


class Node:
    """A thin view of a `ggml_tensor`. Values are arrays in NumPy's order: `ne` reversed, leading ones left out."""

    __slots__ = ("_pass", "_tensor", "address")

    def __init__(self, address: int, of: Pass) -> None:
        self.address = address
        self._pass = of
        self._tensor = Tensor.from_address(address)

    @property
    def tensor(self) -> Tensor:
        """The record itself. Raises `BackendError` when the call that showed it is over: its memory may be another's by now."""
        if not self._pass.live:
            raise BackendError(
                "A node of a llama.cpp graph was used after the run that showed it: copy what is needed while it is shown."
            )
        return self._tensor

    @property
    def run(self) -> int:
        """Which run of the graph shows it, from 0: a prompt longer than `n_ubatch` needs several."""
        return self._pass.run

    @property
    def op(self) -> str:
        """What computes it: `MUL_MAT`, `SOFT_MAX`; `NONE` for a leaf."""
        name: bytes = self._pass.api.ggml_op_name(self.tensor.op)
        return name.decode()

    @property
    def name(self) -> str:
        """`attn_norm-3`, `blk.3.attn_q.weight`; may be empty, and need not be unique."""
        return str(self.tensor.name.decode("utf-8", "replace"))

    @property
    def type(self) -> str:
        """`f32`, `f16`, `q4_1` …"""
        name: bytes = self._pass.api.ggml_type_name(self.tensor.type)
        return name.decode()

    @property
    def ne(self) -> tuple[int, ...]:
        """Four lengths, fastest axis first."""
        return tuple(self.tensor.ne)

    @property
    def nb(self) -> tuple[int, ...]:
        """Four strides in bytes, fastest axis first."""
        return tuple(self.tensor.nb)

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy has it: `ne` reversed, without leading ones."""
        lengths = self.ne
        last = max((axis for axis in range(1, 4) if lengths[axis] != 1), default=0)
        return lengths[last::-1]

    @property
    def op_params(self) -> tuple[int, ...]:
        """The operation's sixteen 32-bit words: integers, or the bits of floats."""
        return tuple(self.tensor.op_params)

    @property
    def sources(self) -> tuple[Node | None, ...]:
        """What it is computed from, in the operation's order, up to the last; None where an optional one is left out."""
        addresses = list(self.tensor.src)
        while addresses and not addresses[-1]:
            addresses.pop()
        return tuple(Node(address, self._pass) if address else None for address in addresses)

    @property
    def viewed(self) -> Node | None:
        """The tensor whose memory this one shows; None if it has its own."""
        address = self.tensor.view_src
        return Node(address, self._pass) if address else None

    @property
    def view_offset(self) -> int:
        """Bytes from the beginning of `viewed`'s memory."""
        return int(self.tensor.view_offs)

    @property
    def is_leaf(self) -> bool:
        """Whether nothing computes it."""
        return int(self.tensor.op) == 0

    @property
    def readable(self) -> bool:
        """Whether `read` has values to give now: numbers, not blocks; a leaf in plain memory, or the node that is ready."""
        tensor = self.tensor
        if tensor.type not in DTYPES or not tensor.data:
            return False
        return self._pass.ready == self.address or (self.is_leaf and self._in_memory())

    @property
    def writable(self) -> bool:
        """Whether `write` can change it now: readable, contiguous F32, and neither a weight nor a cache nor a view of one."""
        tensor, size = self.tensor, 4
        for length, stride in zip(tensor.ne, tensor.nb, strict=True):
            if length != 1 and stride != size:
                return False
            size *= length
        return int(tensor.type) == 0 and self.readable and self._changeable()

    def read(self) -> Array:
        """A copy of the values, in their own type and `shape`, strides honoured. Raises `BackendError` if it is not `readable`."""
        shape = self.shape
        return self.read_part(0, shape, self.nb[: len(shape)][::-1])

    def read_part(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        """A copy of a part: of the given shape, from byte `offset` on, by `strides` in bytes, both in NumPy's order.

        The last query row of a pattern [head, query, key] costs one row a head in this way. Raises `BackendError` if it is not
        `readable`, or if the part reaches beyond it.
        """
        if not self.readable:
            raise BackendError(
                f"The node {self.name!r} ({self.op}, {self.type}) of the llama.cpp graph cannot be read now: it is stored in blocks, "
                "on a device, or it is not the one that has just been computed."
            )
        dtype, size = np.dtype(DTYPES[self.tensor.type]), int(self._pass.api.ggml_nbytes(self.address))
        if 0 in shape:
            return np.empty(shape, dtype)
        span = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + dtype.itemsize
        if offset < 0 or min(strides, default=0) < 0 or min(shape, default=1) < 0 or offset + span > size:
            raise BackendError(
                f"A part of {span} bytes from byte {offset} on is not within the node {self.name!r}, which has {size} bytes."
            )
        raw = np.empty(span, np.uint8)
        self._pass.api.ggml_backend_tensor_get(self.address, raw.ctypes.data, offset, span)
        view: Array = np.ndarray(shape, dtype, raw, 0, strides)
        return view if view.flags.c_contiguous else view.copy()

    def write(self, array: Array) -> None:
        """Put other values in its place, before anything reads them.

        Raises `BackendError` if it is not `writable`, or if the array is not float32 of its `shape`.
        """
        if not self.writable:
            raise BackendError(
                f"The node {self.name!r} ({self.op}, {self.type}) of the llama.cpp graph cannot be written: only contiguous F32 that "
                "has just been computed, or is an input of the run, can."
            )
        if array.shape != self.shape or array.dtype != np.float32:
            raise BackendError(
                f"The node {self.name!r} of the llama.cpp graph is float32 {list(self.shape)}, and was given {array.dtype} "
                f"{list(array.shape)}."
            )
        self._set(np.ascontiguousarray(array).view(np.uint8).reshape(-1))

    def write_input(self, array: Array) -> None:
        """Put other values in the place of an input of the run, such as an attention mask, F32 or F16.

        All nodes read them that come after the last one that was shown as ready: those that nobody wanted are computed late. The next
        pass fills its inputs anew, the next run of the graph too.
        Raises `BackendError` if it is none, or if the array is not of its type and `shape`.
        """
        if not (self.is_leaf and self.readable and self._changeable()):
            raise BackendError(
                f"The node {self.name!r} ({self.op}, {self.type}) of the llama.cpp graph is no input of the run."
            )
        if array.shape != self.shape or array.dtype != DTYPES[self.tensor.type]:
            raise BackendError(
                f"The input {self.name!r} of the llama.cpp graph is {self.type} {list(self.shape)}, and was given {array.dtype} "
                f"{list(array.shape)}."
            )
        self._set(np.ascontiguousarray(array).view(np.uint8).reshape(-1))

    def __repr__(self) -> str:
        return f"<Node {self.op} {self.name!r} {self.type} {list(self.shape)}>" if self._pass.live else "<Node, over>"

    def _owner(self) -> Tensor:
        address = self.tensor.view_src
        return Tensor.from_address(address) if address else self.tensor

    def _in_memory(self) -> bool:
        """Whether the bytes are plain memory: weights repacked for a kernel, which the library cannot give back, are not."""
        buffer = self._owner().buffer
        return bool(buffer) and bool(self._pass.api.ggml_backend_buffer_is_host(buffer))

    def _changeable(self) -> bool:
        """Not the memory of a weight, which is mapped read-only, nor of a cache."""
        owner = self._owner()
        return owner.op != 0 or bool(owner.flags & INPUT)

    def _set(self, raw: Array) -> None:
        size = int(self._pass.api.ggml_nbytes(self.address))
        if raw.nbytes != size:  # an input in strides: not met
            raise BackendError(
                f"The node {self.name!r} of the llama.cpp graph has {size} bytes, and was given {raw.nbytes}."
            )
        self._pass.api.ggml_backend_tensor_set(self.address, raw.ctypes.data, 0, size)
