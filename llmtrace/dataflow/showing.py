"""How a signal that was found in a value is handed out: what was done to it, and how finely it is rounded."""

from __future__ import annotations

from collections.abc import Mapping

from llmtrace.dataflow.forms import Biased, Choices, Form, Heads, Part, Scores, Selected
from llmtrace.dataflow.graph import Graph
from llmtrace.dataflow.segments import MOVES
from llmtrace.schema.sites import Array
from llmtrace.trace import CAPTURED, Provenance

COARSER = ("bfloat16", "float16", "float32", "float64", "int32", "int64", "uint8")
"""Types, the coarsest first."""
POINTWISE = frozenset({"Mul", "Div", "Tanh", "TopK", "GatherElements"})
"""Operators after which a value is no finer than before."""


def storage(value: str, probe: Mapping[str, Array], graph: Graph) -> str:
    """The coarsest type from where a value was computed to where it is shown: graphs in half precision widen it again at the end."""
    if probe[value].dtype == bool:
        return "uint8"
    found = [probe[value].dtype.name]
    while (
        (vertex := graph.maker.get(value)) is not None
        and (vertex.op in MOVES or vertex.op in POINTWISE)
        and vertex.reads
    ):
        value = next((name for name in vertex.reads if name in probe), "")
        if value:
            found.append(probe[value].dtype.name)
    return min(found, key=COARSER.index)


def provenance(form: Form) -> Provenance:
    """Captured as it is, or re-expressed exactly."""
    if isinstance(form, Biased):
        inner = provenance(form.form)
        return Provenance("converted", f"{inner.detail}, bias added" if inner.detail else "bias added")
    if isinstance(form, Part):
        return Provenance(
            "converted", "columns of a product" if form.columns.ndim == 1 else "columns of a product, heads split"
        )
    if isinstance(form, Choices) and (
        form.layout == "expert" or form.every or form.columns is not None or len(form.beside) > 1
    ):
        return Provenance(
            "converted", "rows of the chosen experts, best first" if form.beside else "columns of a product"
        )
    if isinstance(form, Scores):
        return Provenance("converted", "masked scores as -inf")
    if isinstance(form, Selected):
        return Provenance("converted", "1 where a key may be seen")
    if isinstance(form, Heads):
        return Provenance("converted", "heads split" if form.repeat == 1 else "heads split, repeated ones left out")
    return CAPTURED
