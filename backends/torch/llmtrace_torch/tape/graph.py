"""A tape as a graph: its calls by the names of ONNX's operators, single numbers among their arguments as values, and the prompt's length as
one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace_torch.tape.lengths import Linear, follows
from llmtrace_torch.tape.nested import changed
from llmtrace_torch.tape.operators import NUMBERS, ONNX, ORDER
from llmtrace_torch.tape.record import LENGTH, TOKENS, Call, Tape


def read_graph(tape: Tape, calls: Sequence[Call]) -> tuple[Graph, Mapping[str, torch.Tensor]]:
    """The graph of a tape whose calls have been aligned, and the numbers that it has as values besides the tape's leaves."""
    numbers: dict[str, torch.Tensor] = {}
    vertices = [_vertex(index, call, numbers) for index, call in enumerate(calls)]
    sizes = {name: value.numel() for name, value in tape.values.items()} | dict.fromkeys((*numbers, LENGTH), 1)
    return Graph(vertices, (*tape.leaves, *numbers), sizes, (TOKENS, LENGTH)), numbers


def _vertex(index: int, call: Call, numbers: dict[str, torch.Tensor]) -> Vertex:
    op = ONNX.get(call.name, call.name)
    reads = [call.reads[place] for place in ORDER.get(call.name, range(len(call.reads))) if place < len(call.reads)]
    if op in NUMBERS and len(reads) < 2:
        mine = {f"{index} number {place}": torch.tensor(each) for place, each in enumerate(_numbers(call))}
        numbers |= mine
        reads = [*mine, *reads] if call.name == "rsub" else [*reads, *mine]
    if follows(call):
        reads.append(LENGTH)
    return Vertex(index, op, "", tuple(reads), call.makes, _attributes(call))


def _attributes(call: Call) -> dict[str, object]:
    """What an operator is told that graphs are read by, by ONNX's names."""
    told: dict[str, object] = {"told": changed(_told, (call.args, dict(call.kwargs)))}
    if call.holds:
        return {**told, "holds": call.holds}
    if call.name == "topk":
        return {**told, "sorted": int(call.kwargs.get("sorted", call.args[4] if len(call.args) > 4 else True))}
    return told


def _told(x: Any) -> Any:
    """What an operator is told besides what it reads, so that calls that are told other things are told apart."""
    return x if isinstance(x, int | float | str | Linear | torch.dtype) else type(x).__name__


def _numbers(call: Call) -> Iterator[float]:
    yield from (float(each) for each in tree_leaves(call.args) if type(each) in (int, float))
