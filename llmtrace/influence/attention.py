"""Raw attention: what each head looked at (Bahdanau et al. 2015, arXiv 1409.0473, eq. 6; why it is no explanation by itself: Jain &
Wallace 2019, arXiv 1902.10186).

**Map**: a head's pattern row at the position. The scores are the mean of all maps over layers and heads; beside them stand every map, each
head's largest weight, and the named behaviours of heads.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llmtrace.influence.heads import behaviour_keys, head_scores
from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.paths import refuse_without_attention
from llmtrace.influence.record import Contract, HeadScore
from llmtrace.schema.evaluate import Signals


class AttentionFold:
    """Holds the running mean, [query key], and the row of each head, [layer head key]."""

    def __init__(self, task: Task) -> None:
        spec = task.equations.spec
        refuse_without_attention(spec, "Raw attention")
        self._task = task
        self._attentions = {
            layer: block.attention for layer, block in enumerate(spec.blocks) if block.attention is not None
        }
        self.sites: Collection[str] = tuple(f"blocks.{layer}.attn.pattern" for layer in self._attentions)
        tokens, heads = len(task.tokens), max(attention.heads for attention in self._attentions.values())
        self._keys = behaviour_keys(task.ids)
        self._sum = np.zeros((tokens, tokens))
        self._maps = np.full((len(spec.blocks), heads, tokens), np.nan)
        self._layers = np.full((len(spec.blocks), tokens), np.nan)
        self._table: list[HeadScore] = []

    def layer(self, layer: int, signals: Signals) -> None:
        """Add this block's pattern to the mean, and keep its rows at the position."""
        attention = self._attentions.get(layer)
        if attention is None:
            return
        pattern = signals[f"blocks.{layer}.attn.pattern"].astype(np.float64)
        mean = pattern.mean(0)
        self._sum += mean
        self._maps[layer, : len(pattern)] = pattern[:, self._task.position]
        self._layers[layer] = mean[self._task.position]
        self._table += head_scores(layer, pattern, self._keys, attention.window)

    def finish(self, ends: Signals) -> None:
        """Nothing at the ends is attention."""

    def answer(self) -> Answer:
        """The mean over layers and heads at the position, and all of it as `matrix`."""
        matrix = self._sum / len(self._attentions)
        layers = len(self._layers)
        without = [str(layer) for layer in range(layers) if layer not in self._attentions]
        notes: tuple[tuple[str, float | str], ...] = (
            (("blocks without attention", ", ".join(without)),) if without else ()
        )
        if any(attention.sinks for attention in self._attentions.values()):
            notes += (("share of attention sinks", float(1 - matrix[self._task.position].sum())),)
        return Answer(
            scores=matrix[self._task.position],
            matrix=matrix,
            heads=self._maps.max(-1),
            maps=self._maps,
            layers=self._layers,
            table=tuple(self._table),
            notes=notes,
        )


ATTENTION = Method(
    name="attention",
    title="Raw attention",
    needs="T",
    cost="T² H L",
    completeness=None,
    source="Bahdanau, Cho, Bengio 2015 (arXiv 1409.0473), eq. 6; Jain & Wallace 2019 (arXiv 1902.10186) on its limits",
    contract=Contract(
        output="nothing downstream: what the heads looked at, whatever came of it (no target enters)",
        features="the value at each source position, in every layer",
        process="mean of the attention patterns over layers and heads",
        fixed="everything but the patterns is left out",
        unit="share of attention (a row sums to 1, less what sinks took)",
    ),
    fold=AttentionFold,
    aims=False,
)
