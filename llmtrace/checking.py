"""Verifying a model while it runs: the schema's equations as a fold, with the memory of one layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from llmtrace.recording import Plan
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import LocalError, verify


class Around:
    """What the equations of one block can be applied to: its signals, the ends, the prompt, and the end of the block before."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._inputs: dict[str, Array] = {"tokens": np.asarray(ids), "positions": np.arange(len(ids))}
        self._carried: dict[str, Array] = {}

    def __call__(self, signals: Signals) -> dict[str, Array]:
        """The signals with what stands around them."""
        return self._inputs | self._carried | dict(signals)

    def done(self, layer: int, signals: Signals) -> None:
        """Carry a block's end over, which the next one's beginning is compared with."""
        end = f"blocks.{layer}.resid_post"
        self._carried = {end: signals[end]} if end in signals else {}


class Checking:
    """A fold that judges every captured signal by its equation, and keeps only the verdicts.

    `equations` are those to judge by, where they are not the model's own: another's spec and weights.
    """

    def __init__(self, plan: Plan, equations: Equations | None = None) -> None:
        self._equations = plan.equations if equations is None else equations
        self._around = Around(plan.ids)
        self._found: dict[str, LocalError] = {}
        self.sites: Collection[str] = [site for site, kind in plan.provenance.items() if kind.kind != "derived"]
        """A derived signal agrees with its equation by construction: only what the runtime handed out is judged."""
        self._precision = {site: plan.precision[site] for site in self.sites}

    def layer(self, layer: int, signals: Signals) -> None:
        """Judge one block."""
        self._judge(signals)
        self._around.done(layer, signals)

    def finish(self, ends: Signals) -> None:
        """Judge the embeddings, the final norm and the logits."""
        self._judge(ends)

    def _judge(self, signals: Signals) -> None:
        captured = self._around(signals)
        wanted = [site for site in signals if site not in self._found]
        self._found |= {error.site: error for error in verify(self._equations, captured, self._precision, wanted)}

    def errors(self) -> list[LocalError]:
        """One verdict a site, in dataflow order; call once the run is over."""
        return [self._found[site] for site in self._equations.steps if site in self._found]
