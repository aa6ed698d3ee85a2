"""What a graph is fed with. **Role**: what an input is for — the tokens, the mask of those that count, their positions, a cache, a switch.
**Past**: keys and values of tokens before the prompt, of which there are none; **ring**: a cache that is as long as a window.

A role follows from who reads the input, its rank and its type; its name decides only where these leave several open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.errors import BackendError, UnsupportedModelError
from llmtrace.schema.sites import Array
from llmtrace_onnxruntime.caches import past_shape
from llmtrace_onnxruntime.cut import last_only
from llmtrace_onnxruntime.flow import Flow, dims
from llmtrace_onnxruntime.outputs import outputs_of
from llmtrace_onnxruntime.proto import Loaded
from llmtrace_onnxruntime.roles import Role, roles
from llmtrace_onnxruntime.tensors import dtype_of

Length: TypeAlias = int | Literal["n"] | tuple[Literal["n"], int]
"""A number, as many as there are tokens, or so many more than these."""


@frozen
class Feed:
    """One input."""

    name: str
    role: Role
    dtype: np.dtype[Any]
    shape: tuple[Length, ...]

    def array(self, tokens: Sequence[int]) -> Array:
        """What it is fed for a prompt."""
        n = len(tokens)
        shape = tuple(
            length if isinstance(length, int) else n if length == "n" else n + length[1] for length in self.shape
        )
        if self.role == "tokens":
            return np.asarray(tokens, self.dtype).reshape(shape)
        if self.role in {"positions", "cache_position"}:
            return np.ascontiguousarray(np.broadcast_to(np.arange(n, dtype=self.dtype), shape))
        if self.role == "keep":  # so many last positions are to have logits: all
            return np.full(shape, n, self.dtype)
        if self.role == "mask":
            return np.ones(shape, self.dtype)
        if self.role in {"may", "may_not"}:  # by query and key
            seen = np.tri(n, dtype=bool)
            return np.ascontiguousarray(np.broadcast_to(seen if self.role == "may" else ~seen, shape))
        if self.role == "added":
            lowest = _lowest(self.dtype)
            return np.ascontiguousarray(
                np.broadcast_to(np.where(np.tri(n, dtype=bool), 0, lowest).astype(self.dtype), shape)
            )
        return np.zeros(shape, self.dtype)  # an empty past, an empty ring, a switch that is off


@frozen
class Inputs:
    """All inputs of a graph, and which of its outputs are what."""

    feeds: tuple[Feed, ...]
    """In the graph's order."""
    tokens: str
    """The input that takes token ids."""
    logits: str
    """The output that is the logits, `[1, token, vocab]`."""
    vocab: int | None
    """The length of their last axis, where the graph says it."""
    caches: tuple[str, ...]
    """All other outputs."""
    last_only: bool
    """Whether the logits are those of the last position alone: see `cut.whole`."""

    def arrays(self, tokens: Sequence[int]) -> dict[str, Array]:
        """What every input is fed for one prompt, positions 0, 1, 2 …, nothing before it."""
        return {feed.name: feed.array(tokens) for feed in self.feeds}


def inputs_of(loaded: Loaded) -> Inputs:
    """The inputs of a graph. Nothing is run.

    Raises `UnsupportedModelError` that names an input that is none of what a decoder takes, or of a length that cannot be told.
    """
    graph, flow = loaded.graph, Flow(loaded.graph)
    weights = {tensor.name for tensor in graph.initializer}
    values = {value.name: value for value in graph.input if value.name not in weights}
    logits, vocab, caches = outputs_of(loaded, flow)
    found = roles(loaded, flow, list(values.values()), vocab)
    tokens = [name for name, role in found.items() if role == "tokens"]
    if len(tokens) != 1:
        raise UnsupportedModelError(
            f"{loaded.path}: {'several inputs' if tokens else 'no input'} of {', '.join(values) or 'none'} can take token ids: export a "
            "decoder whose input is input_ids."
        )
    feeds = []
    for name, role in found.items():
        kind, shape = dtype_of(values[name].type.tensor_type.elem_type), dims(values[name])
        feeds.append(Feed(name, role, kind, _shape(loaded, flow, name, role, shape)))
    return Inputs(tuple(feeds), tokens[0], logits, vocab, caches, last_only(loaded, flow, logits))


def _shape(
    loaded: Loaded, flow: Flow, name: str, role: Role, shape: tuple[int | str, ...] | None
) -> tuple[Length, ...]:
    """The lengths of an input: 1 for the batch, the prompt's for its last axis, as the graph says for a cache."""
    if shape is None:
        raise UnsupportedModelError(
            f"{loaded.path}: the input {name} has no shape: export the model with shapes of its inputs."
        )
    if role in {"past", "ring"}:
        return past_shape(loaded, flow, name, shape)
    if role in {"keep", "switch"}:
        return tuple(1 for _ in shape)
    tail: tuple[Length, ...] = ("n", "n") if role in {"may", "may_not", "added"} else ("n",)
    if len(shape) < len(tail):
        raise UnsupportedModelError(
            f"{loaded.path}: the input {name} has {len(shape)} axes, too few for {_WORDS[role]}."
        )
    head, last = shape[: len(shape) - len(tail)], shape[len(shape) - len(tail) :]
    if fixed := [length for length in last if isinstance(length, int)]:
        raise UnsupportedModelError(
            f"{loaded.path}: the input {name} takes exactly {fixed[0]} tokens: export the model with a dynamic length (dynamic_axes, or "
            "dynamic_shapes)."
        )
    many = role == "positions" and len(head) == 2  # several kinds of positions, of which a text has the same
    if wrong := [
        length
        for place, length in enumerate(head)
        if isinstance(length, int) and length != 1 and not (many and not place)
    ]:
        raise UnsupportedModelError(
            f"{loaded.path}: the input {name} takes exactly {wrong[0]} prompts at once: export the model with a batch of one, or any."
        )
    return (*(length if isinstance(length, int) else 1 for length in head), *tail)


_WORDS: Mapping[Role, str] = {
    "may": "a mask",
    "may_not": "a mask",
    "added": "a mask",
    "tokens": "token ids",
    "mask": "a mask",
}


def _lowest(dtype: np.dtype[Any]) -> float:
    """What is added to a score that shall not count."""
    try:
        return float(np.finfo(dtype).min)
    except ValueError:
        import ml_dtypes

        if dtype != ml_dtypes.bfloat16:
            raise BackendError(f"a mask of type {dtype} cannot be filled: report the model.") from None
        return float(ml_dtypes.finfo(dtype).min)  # type: ignore[no-untyped-call]
