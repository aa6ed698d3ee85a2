"""The sites of one model as rows for people: axes, equation, and what rebuilds each."""

from __future__ import annotations

from attrs import frozen

from llmtrace.schema.steps import steps
from llmtrace.spec import ModelSpec


@frozen
class Site:
    """One place in the computation of one model."""

    name: str
    """`blocks.3.attn.pattern`."""
    axes: tuple[str, ...]
    """Of the value."""
    equation: str
    """The formula, as the docs print it."""
    inputs: tuple[str, ...]
    """The sites and model inputs that rebuild it."""
    weights: tuple[str, ...]
    """The weights that rebuilding it reads."""
    opaque: bool
    """Nothing rebuilds it: it can only be captured."""
    on_request: bool
    """Recorded only where it is named."""


def sites(spec: ModelSpec) -> list[Site]:
    """Every site of a model, in execution order."""
    return [
        Site(
            step.site, step.axes, step.equation.formula, step.inputs, tuple(w.name for w in step.weights.values()),
            step.equation.opaque, step.equation.on_request,
        )
        for step in steps(spec).values()
    ]  # fmt: skip
