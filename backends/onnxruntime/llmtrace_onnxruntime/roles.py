"""Which input is for what, from who reads it. See `inputs` for the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import onnx

from llmtrace.errors import UnsupportedModelError, shown
from llmtrace_onnxruntime.caches import is_ring
from llmtrace_onnxruntime.choosing import decoder
from llmtrace_onnxruntime.flow import REARRANGING, Flow, dims, reading
from llmtrace_onnxruntime.outputs import FLOATS
from llmtrace_onnxruntime.proto import Loaded

Role: TypeAlias = Literal[
    "tokens", "mask", "may", "may_not", "added", "positions", "cache_position", "past", "ring", "keep", "switch"
]
"""`mask`: ones for tokens that count; `may`, `may_not`, `added`: a mask of query and key, true for what is seen, for what is not, or added
to scores; `keep`: of how many last positions logits are wanted; `switch`: whether there is a past."""

INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32})
LOOKUPS = {"Gather": 1, "GatherBlockQuantized": 1, "EmbedLayerNormalization": 0}
"""Operators that look rows up, to the place of the index."""
POSITIONS = {("RotaryEmbedding", 1), ("RotaryEmbedding", 3), ("GroupQueryAttention", 9), ("EmbedLayerNormalization", 8)}
"""Places of positions; the first is of `com.microsoft`, the second of ONNX's own operator."""
PASTS = {
    "GroupQueryAttention": (3, 4), "MultiHeadAttention": (6, 7), "Attention": (4, 5), "DecoderMaskedMultiHeadAttention": (5, 6),
}  # fmt: skip
ADDED = {
    ("Add", 0),
    ("Add", 1),
    ("GroupQueryAttention", 10),
    ("MultiHeadAttention", 5),
    ("Attention", 3),
    ("Attention", 5),
}
PADDING = {("Attention", 3), ("MultiHeadAttention", 4)}
"""Places of a mask of those tokens that count."""
ENDS = frozenset(
    {"Shape", "Size", "CumSum", "ReduceSum", "Softmax", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"}
)
"""Beyond these a number says nothing of the position of a token."""
MASK_AXES = 4
"""Prompt, head, query and key: what is added to something else with fewer axes may be anything."""
NAMES: dict[str, Role] = {
    "input_ids": "tokens",
    "attention_mask": "mask",
    "position_ids": "positions",
    "cache_position": "cache_position",
    "num_logits_to_keep": "keep",
    "logits_to_keep": "keep",
    "use_cache_branch": "switch",
}
"""What exporters call them."""
ROLES: dict[int, tuple[Role, ...]] = {
    0: ("keep",),
    1: ("cache_position", "keep", "switch", "tokens"),
    2: ("tokens", "mask", "positions"),
    3: ("positions",),
}
"""Roles of an integer by its rank."""


def roles(loaded: Loaded, flow: Flow, values: Sequence[onnx.ValueInfoProto], vocab: int | None) -> dict[str, Role]:
    """The role of every input, in order. Raises `UnsupportedModelError` for one that has none."""
    tables = {value.name: rows for value in values if _whole(value) and (rows := _rows(loaded, flow, value.name))}
    tokens = _tokens(loaded, tables, vocab)
    return {value.name: "tokens" if value.name == tokens else _role(loaded, flow, value) for value in values}


def _tokens(loaded: Loaded, tables: dict[str, set[int]], vocab: int | None) -> str | None:
    """The input that looks up rows of the vocabulary: of several tables, the one with as many rows as there are logits, else the largest."""
    if len(tables) < 2:
        return next(iter(tables), None)
    fitting = [name for name, rows in tables.items() if vocab is not None and vocab in rows]
    if len(fitting) == 1:
        return fitting[0]
    if named := [name for name in tables if _named(loaded, name) == "tokens"]:
        return named[0]
    most = max(max(rows) for rows in tables.values())
    largest = [name for name, rows in tables.items() if most in rows]
    return largest[0] if len(largest) == 1 else None


def _role(loaded: Loaded, flow: Flow, value: onnx.ValueInfoProto) -> Role:
    shape, kind = dims(value), value.type.tensor_type.elem_type
    rank = None if shape is None else len(shape)
    arrivals = [(node.op_type, place) for node, place in flow.arrivals(value.name)]
    found: Role | None = None
    if rank is not None and kind in INTEGERS:
        found = _integer(loaded, flow, value.name, rank, arrivals)
    elif rank is not None and rank >= 3 and kind in FLOATS | {onnx.TensorProto.BOOL}:
        found = _array(flow, value.name, rank, kind, arrivals)
    elif rank is not None and rank <= 1 and kind == onnx.TensorProto.BOOL:
        found = "switch" if any(op == "If" for op, _ in arrivals) or _named(loaded, value.name) == "switch" else None
    elif rank == 2 and kind in FLOATS | {onnx.TensorProto.BOOL}:
        found = "mask" if _named(loaded, value.name) == "mask" or kind == onnx.TensorProto.BOOL else None
    if found is None:
        raise UnsupportedModelError(
            f"{loaded.path}: the input {shown(value.name)} ({_kind(kind)}, "
            f"{'no shape' if shape is None else list(shape)}) is none that a decoder of text takes: token ids, masks, positions, caches. "
            "Export the language model alone, from token ids to logits."
        )
    return found


def _integer(loaded: Loaded, flow: Flow, name: str, rank: int, arrivals: Sequence[tuple[str, int]]) -> Role | None:
    counted = any(op == "CumSum" for op, _ in arrivals)  # positions may be counted from a mask, and look a table up
    positional = not counted and _positional(loaded, flow, name)
    named = _named(loaded, name)
    if (
        rank in {0, 1}
        and any(op in {"Neg", "Slice", "Sub"} for op, _ in arrivals)
        and named in {"keep", None}
        and not positional
    ):
        return "keep"
    if rank == 1 and named in {"cache_position", None} and (positional or arrivals):
        return "cache_position" if positional or named else None
    if rank == 2 and positional:
        return "positions"
    if rank == 3 and (positional or named == "positions"):
        return "positions"
    if rank in {2, 3} and any(each in PADDING for each in arrivals):
        return "mask"
    if rank == 2 and named in {"mask", "positions"}:
        return named
    if rank == 2 and any(op in ENDS | {"Sub", "Where", "And", "Not", "Mul"} for op, _ in arrivals):
        return "mask"
    return named if named in ROLES.get(rank, ()) and named != "tokens" else None


def _array(flow: Flow, name: str, rank: int, kind: int, arrivals: Sequence[tuple[str, int]]) -> Role | None:
    """A cache, or a mask of query and key."""
    into = {(op, place) for op, place in arrivals if place in PASTS.get(op, ())}
    if (
        kind != onnx.TensorProto.BOOL
        and (into or any(op == "Concat" for op, _ in arrivals))
        and not _masks(arrivals, into)
    ):
        return "ring" if is_ring(flow, name) else "past"
    if kind != onnx.TensorProto.BOOL:
        return "added" if any(each in ADDED for each in arrivals) and rank == MASK_AXES else None
    for node, place in flow.arrivals(name):
        if (
            node.op_type == "Where" and place == 0
        ):  # where it is true, one of two: the constant hides, the other is the score
            return "may_not" if flow.constant(reading(node, 1)) else "may"
        if node.op_type in {"Attention", "And"}:
            return "may"
        if node.op_type == "Not":
            inside = _array(
                flow, node.output[0], rank, kind, [(each.op_type, at) for each, at in flow.arrivals(node.output[0])]
            )
            return {"may": "may_not", "may_not": "may"}.get(str(inside))  # type: ignore[return-value]
    return None


def _masks(arrivals: Sequence[tuple[str, int]], into: set[tuple[str, int]]) -> bool:
    """Whether what looks like a cache of `Attention` is added to scores instead."""
    return not into and any(op == "Add" for op, _ in arrivals) and not any(op == "Concat" for op, _ in arrivals)


def _positional(loaded: Loaded, flow: Flow, name: str) -> bool:
    """Whether its numbers become angles, or look rows up in a table."""
    for node, place in flow.arrivals(name, beyond=ENDS):
        if node.op_type in {"Cos", "Sin"} or (node.op_type, place) in POSITIONS:
            return True
        if LOOKUPS.get(node.op_type) == place and flow.constant(reading(node, 0)):
            return True
    return False


def _rows(loaded: Loaded, flow: Flow, name: str) -> set[int]:
    """How many rows the tables have in which an input looks rows up."""
    found = set()
    for node, place in flow.arrivals(name, through=REARRANGING | {"Clip", "Where"}):
        if LOOKUPS.get(node.op_type) != place:
            continue
        table = reading(node, 2 if node.op_type == "EmbedLayerNormalization" else 0)
        if flow.constant(table):
            found.add(_first_axis(loaded, flow, table))
    return found


def _first_axis(loaded: Loaded, flow: Flow, table: str) -> int:
    origin = flow.origin(table, REARRANGING | {"DequantizeLinear", "DequantizeBFP"})
    shape = loaded.tensors.shapes.get(table) or loaded.tensors.shapes.get(origin) or (0,)
    return shape[0]


def _kind(kind: int) -> str:
    """What ONNX calls a type of elements."""
    known = kind in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(kind).lower() if known else f"type {kind}"


def _whole(value: onnx.ValueInfoProto) -> bool:
    shape = dims(value)
    return value.type.tensor_type.elem_type in INTEGERS and shape is not None and len(shape) in {1, 2}


def _named(loaded: Loaded, name: str) -> Role | None:
    """What the name says, if it is one that `genai_config.json` or an exporter gives."""
    said = decoder(loaded.genai).get("inputs")
    usual = next((key for key, value in said.items() if value == name), name) if isinstance(said, dict) else name
    return NAMES.get(usual)
