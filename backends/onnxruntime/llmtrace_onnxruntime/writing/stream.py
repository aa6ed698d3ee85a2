"""The residual stream and the blocks along it. **Point**: a sum that may still be open, so that the first norm that reads it can be fused
with it."""

from __future__ import annotations

from collections.abc import Callable

from llmtrace.errors import UnsupportedModelError
from llmtrace.spec import Attention, Block, Branch, Carry, Mixer, Moe, Norm
from llmtrace_onnxruntime.writing.activation import scaled
from llmtrace_onnxruntime.writing.attention import attention
from llmtrace_onnxruntime.writing.graph import Graph
from llmtrace_onnxruntime.writing.mlp import mlp
from llmtrace_onnxruntime.writing.moe import moe
from llmtrace_onnxruntime.writing.norm import norm, skip_norm


class Point:
    """A point of the stream: what flows in, added when it is first read. Parallel branches are summed before they join."""

    def __init__(self, graph: Graph, d_model: int, stream: str, *branches: str) -> None:
        self.graph, self.d_model = graph, d_model
        self._terms = [stream]
        if branches:
            joined = branches[0]
            for branch in branches[1:]:
                joined = graph.op("Add", joined, branch)
            self._terms.append(joined)

    def value(self) -> str:
        """The sum."""
        if len(self._terms) > 1:
            self._terms = [self.graph.op("Add", *self._terms)]
        return self._terms[0]

    def normed(self, n: Norm, at: str) -> str:
        """A norm of it."""
        if self.graph.style.skip and len(self._terms) > 1:
            y, total = skip_norm(self.graph, n, (self._terms[0], self._terms[1]), at, self.d_model)
            self._terms = [total]
            return y
        return norm(self.graph, n, self.value(), at, self.d_model)


def block(graph: Graph, b: Block, stream: Point, at: str, context: int | None) -> Point:
    """The stream after a block: the order in which points and norms come is that of the branches that read them."""
    norms = {f"{each.name}.out": each for each in b.norms}
    here = stream
    if b.carry_pre.factored:
        here = Point(graph, stream.d_model, _going_on(graph, b.carry_pre, stream, str, f"{at}resid_pre"))
    points, read, waiting = {"resid_pre": here}, dict[str, str](), list[str]()

    def reading(site: str) -> str:
        if site not in read:
            one = norms.get(site)
            read[site] = points[one.reads].normed(one.norm, f"{at}{one.name}") if one else points[site].value()
        return read[site]

    for branch in b.branches:
        source = norms[branch.reads].reads if branch.reads in norms else branch.reads
        if source not in points:
            goes_on = _going_on(graph, b.carry_mid, here, reading, f"{at}resid_mid")
            here = points[source] = Point(graph, stream.d_model, goes_on, *waiting)
            waiting = []
        waiting.append(_contribution(graph, branch, reading(branch.reads), at, stream.d_model, context))
    after = Point(graph, stream.d_model, _going_on(graph, b.carry_post, here, reading, f"{at}resid_post"), *waiting)
    if b.stream_scale == 1:
        return after
    return Point(graph, stream.d_model, scaled(graph, after.value(), b.stream_scale))


def _going_on(graph: Graph, carry: Carry, here: Point, reading: Callable[[str], str], at: str) -> str:
    """What of the stream goes on into a point of it: `scale * w * (x + b)`."""
    x = reading(carry.reads) if carry.reads else here.value()
    if carry.bias:
        x = graph.op("Add", x, graph.weight(f"{at}.b"))
    if carry.weight:
        x = graph.op("Mul", x, graph.weight(f"{at}.w"))
    return scaled(graph, x, carry.scale)


def _contribution(graph: Graph, branch: Branch, x: str, at: str, d_model: int, context: int | None) -> str:
    """What a branch adds to the stream."""
    match branch.module:
        case Attention() as module:
            y = attention(graph, module, x, f"{at}attn", context)
        case Moe() as module:
            y = moe(graph, module, x, f"{at}mlp", d_model)
        case Mixer(kind):
            raise UnsupportedModelError(f"A {kind} branch is not written: the equations do not say what it computes.")
        case module:
            y = mlp(graph, module, x, f"{at}mlp")
    if branch.post is not None:
        y = norm(graph, branch.post, y, f"{at}{branch.name}_post", d_model)
    if branch.weight:
        y = graph.op("Mul", y, graph.weight(f"{at}{branch.name}_out.w"))
    return scaled(graph, y, branch.multiplier)
