"""Attention rollout: patterns with the residual stream, multiplied from first to last (Abnar & Zuidema 2020, arXiv 2005.00928, eq. 1).

    Â_l = ½ mean_h pattern_l + ½ I          rollout = Â_L ⋯ Â_1

**Lost mass**: what sinks took, so that it came from no token. A pattern with sinks has rows that sum to less than one; the rest is a
column of its own that later layers carry on, and it is reported in the parts, never spread over tokens.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.paths import refuse_mixers, refuse_without_attention
from llmtrace.influence.record import Contract
from llmtrace.schema.evaluate import Signals


class RolloutFold:
    """Holds the product so far, [query key], the lost mass, [query], and the row of each layer."""

    def __init__(self, task: Task) -> None:
        spec = task.equations.spec
        refuse_mixers(spec, "Rollout")
        refuse_without_attention(spec, "Rollout")
        self._task = task
        attentions = {layer: block.attention for layer, block in enumerate(spec.blocks) if block.attention is not None}
        self._sinks = {layer for layer, attention in attentions.items() if attention.sinks}
        self.sites: Collection[str] = (
            *(f"blocks.{layer}.attn.pattern" for layer in attentions),
            *(f"blocks.{layer}.attn.sink" for layer in sorted(self._sinks)),
        )
        tokens = len(task.tokens)
        self._product = np.eye(tokens)
        self._lost = np.zeros(tokens)
        self._layers = np.zeros((len(spec.blocks), tokens))

    def layer(self, layer: int, signals: Signals) -> None:
        """Multiply by this block's pattern; a block without attention leaves tokens where they are."""
        pattern = signals.get(f"blocks.{layer}.attn.pattern")
        if pattern is None:
            self._layers[layer, self._task.position] = 1
            return
        step = 0.5 * pattern.astype(np.float64).mean(0) + 0.5 * np.eye(len(self._product))
        self._product = step @ self._product
        self._lost = step @ self._lost
        if layer in self._sinks:
            self._lost = self._lost + 0.5 * signals[f"blocks.{layer}.attn.sink"].astype(np.float64).mean(0)
        self._layers[layer] = step[self._task.position]

    def finish(self, ends: Signals) -> None:
        """Nothing at the ends mixes tokens."""

    def answer(self) -> Answer:
        """The product's row at the position, and all of it as `matrix`."""
        position = self._task.position
        return Answer(
            scores=self._product[position],
            completeness_gap=float(np.abs(self._product.sum(-1) + self._lost - 1).max()),
            matrix=self._product,
            parts=(("attention sinks", float(self._lost[position])),) if self._sinks else (),
            layers=self._layers,
        )


ROLLOUT = Method(
    name="rollout",
    title="Attention rollout",
    needs="T",
    cost="T³ L",
    completeness="rows sum to 1, with what sinks took",
    source="Abnar & Zuidema 2020 (arXiv 2005.00928), section 3, eq. 1",
    contract=Contract(
        output="the residual stream at the position after the last block (no target enters)",
        features="the residual stream at each source position before the first block",
        process="½ mean over heads of the pattern + ½ identity, multiplied from first to last layer",
        fixed="attention patterns; values, norms and MLPs are left out",
        unit="share (a row sums to 1, with what sinks took)",
    ),
    fold=RolloutFold,
    aims=False,
)
