"""Ways of looking, each with what it is to cost at most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import frozen

from llmtrace.model import Model
from llmtrace.schema.sites import Array
from llmtrace.selection import Capture
from tests.benchmarks.performance.opened import bare
from tests.benchmarks.tracing import Nobody

SIXTEEN = [
    "blocks.*.resid_{pre,mid,post}", "blocks.*.ln{1,2}.out", "blocks.*.attn.{q,k,v,pattern,z,out}",
    "blocks.*.mlp.{pre,pre_linear,post,out}", "ln_final.out", "logits",
]  # fmt: skip
"""Fifteen signals of each layer, all that nnsight reaches at modules, and pattern; and the two at the end."""
PATTERNS = "blocks.*.attn.pattern"
STREAM = "blocks.*.resid_{pre,mid,post}"


@frozen
class Run:
    """One way of looking."""

    name: str
    go: Callable[[Model, list[int]], Callable[[], object]]
    """What is timed."""
    capture: Capture = None
    """What it looks at, where that is a selection."""
    aim: float | None = None
    """How many bare passes it is to cost at most, at 512 tokens."""
    keeps: bool = False
    """Whether what it looks at is in memory when it ends."""

    @property
    def looks(self) -> bool:
        """Whether it looks at a selection."""
        return self.name.endswith(("streamed", "kept", "floor"))


def _stream(capture: Capture) -> Callable[[Model, list[int]], Callable[[], object]]:
    return lambda model, ids: lambda: model.stream(ids, Nobody(), capture)


def _trace(capture: Capture) -> Callable[[Model, list[int]], Callable[[], object]]:
    return lambda model, ids: lambda: model.trace(ids, capture=capture, max_bytes=None)


def _floor(capture: Capture) -> Callable[[Model, list[int]], Callable[[], object]]:
    """A bare pass, and as many bytes copied into new memory as the selection has, signal by signal."""

    def ready(model: Model, ids: list[int]) -> Callable[[], object]:
        forward, sizes = bare(model, ids), sizes_of(model, ids, capture)
        source = np.ones(max(sizes), np.uint8)

        def run() -> object:
            kept: list[Array] = []
            out = forward()
            kept.extend(source[:size].copy() for size in sizes)
            return out, kept

        return run

    return ready


def _alti(model: Model, ids: list[int]) -> Callable[[], object]:
    return lambda: model.influence(ids, method="alti")


def _traced(
    name: str, capture: Capture, aim: float | None, kept_aim: float | None = None, *, floor: bool = True
) -> list[Run]:
    found = [
        Run(f"{name}, streamed", _stream(capture), capture, aim),
        Run(f"{name}, kept", _trace(capture), capture, kept_aim or aim, keeps=True),
    ]
    return [*found, *([Run(f"{name}, floor", _floor(capture), capture, keeps=True)] if floor else [])]


RUNS = {
    run.name: run
    for run in (
        Run("bare", bare),
        Run("bare again", bare),
        *_traced("everything", None, 1.2),
        *_traced("sixteen", SIXTEEN, 1.2),
        *_traced("patterns", PATTERNS, 1.1),
        *_traced("residual stream", STREAM, 1.03),
        Run("ALTI", _alti, None, 1.3),
    )
}
BESIDE = ("bare", "everything, kept", "sixteen, kept")
"""What a peer is measured beside, in its own process."""
EAGER = "sixteen, kept (eager attention)"
"""And this, of a model that was opened as the peer's is: with the kernel that makes the pattern on its way."""
HUGE = ("everything, kept", "everything, floor", "sixteen, kept", "sixteen, floor")
"""What is measured with huge pages too: what is bounded by new memory."""


def sizes_of(model: Model, ids: list[int], capture: Capture) -> list[int]:
    """Bytes of each signal that a selection names."""
    plan = model.plan(model.tokens(ids), capture)
    steps = plan.equations.steps
    return [
        int(np.prod(cut.shape(steps[site].shape(len(ids))))) * np.dtype(plan.dtypes[site]).itemsize
        for site, cut in plan.cuts.items()
    ]
