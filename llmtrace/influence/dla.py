"""Direct logit attribution: the target's logit as a sum over components (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits", section «Splitting attention head terms»; with the final norm's denominator fixed, as TransformerLens's `logit_attrs`).

**Direction** of a token at a position: what the last stream's dot product with is its logit, `scale · w_f ⊙ W_U[:, t] / σ_f`, centred
under layer norm; of a target and a foil, the difference. **Direct**: through the residual stream only; what a component does to later
components is credited to those. Attention is parted into paths (see `paths`), so a source token is credited with what every head moved
from it; embeddings belong to their own position; MLPs and biases belong to no token and stand among the parts.

    logit = Σ_j score_j + Σ parts            exactly, up to rounding: the completeness gap

Of a logit with a softcap the *uncapped* one is parted.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.onward import onward
from llmtrace.influence.paths import path_sites, paths
from llmtrace.influence.readout import Readout, uncapped
from llmtrace.influence.record import Contract
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.steps import BEFORE
from llmtrace.spec import Mixer

MANY = 0.01
"""A relative gap from which the result carries a warning; ten times that is no decomposition at all."""


class DlaFold:
    """Holds sums of dot products with each row's direction before σ_f is known: [query key], [layer head], [layer key], parts."""

    def __init__(self, task: Task) -> None:
        if task.target is None:
            raise ValueError("direct logit attribution parts a target's logit, and the task has no target")
        self._task, self._target = task, task.target
        spec, steps = task.equations.spec, task.equations.steps
        layers, tokens = len(spec.blocks), len(task.tokens)
        self._others = {
            layer: [
                f"blocks.{layer}.{branch.name}_out" for branch in block.branches if branch.module is not block.attention
            ]
            for layer, block in enumerate(spec.blocks)
        }
        self._starts = tuple(site for site in BEFORE if site in steps)
        self._onward = onward(task.equations, "Direct logit attribution")
        self.sites: Collection[str] = (
            *(site for layer in range(layers) for site in (*path_sites(spec, layer), *self._others[layer])),
            *self._starts, "ln_final.scale", "logits",
        )  # fmt: skip
        self._readout = Readout.of(task.equations)
        rows = [prediction.id for prediction in task.predictions]
        foil = None if task.foil is None else task.foil.id
        self._directions = self._readout.directions(rows)
        self._wanted = self._readout.directions([self._target.id], foil)[0]
        heads = max((attention.heads for block in spec.blocks if (attention := block.attention)), default=0)
        self._matrix = np.zeros((tokens, tokens))
        self._heads = np.full((layers, heads), np.nan)
        self._layers = np.full((layers, tokens), np.nan)
        self._parts: dict[str, float] = {}
        self._biases = 0.0
        self._rest = np.zeros(tokens)

    def layer(self, layer: int, signals: Signals) -> None:
        """Add this block's dot products, each term as large as it is at the stream's end."""
        position, spec = self._task.position, self._task.equations.spec
        if spec.blocks[layer].attention is not None:
            through, factor = (
                paths(self._task.equations, layer, signals),
                self._onward.factors[f"blocks.{layer}.attn_out"],
            )
            self._matrix += through.towards(factor * self._directions).sum(0)
            self._rest += (factor * through.constant * self._directions).sum(-1)
            wanted = through.at(position).towards(factor * self._wanted[None])[:, 0]  # [head key]
            self._layers[layer] = wanted.sum(0)
            self._heads[layer, : len(wanted)] = wanted.sum(-1)
            self._biases += float((factor * through.constant[position]) @ self._wanted)
        for site in self._others[layer]:
            out = self._onward.factors[site] * signals[site].astype(np.float64)
            self._parts[site] = float(out[position] @ self._wanted)
            self._rest += (out * self._directions).sum(-1)

    def finish(self, ends: Signals) -> None:
        """Credit the embeddings to their positions, divide by σ_f, add what stands after the stream, and compare with the logits."""
        task, position, readout = self._task, self._task.position, self._readout
        own = np.sum([self._onward.factors[site] * ends[site].astype(np.float64) for site in self._starts], axis=0)
        self._rest += self._directions @ self._onward.constant
        sigma = ends["ln_final.scale"].astype(np.float64)
        tokens = np.arange(len(task.tokens))
        self._matrix[tokens, tokens] += (own * self._directions).sum(-1)
        self._matrix /= sigma
        self._heads /= sigma[position]
        self._layers /= sigma[position]
        self._own = float(own[position] @ self._wanted / sigma[position, 0])
        self._scores = np.nan_to_num(self._layers).sum(0)
        self._scores[position] += self._own
        self._parts = {name: value / float(sigma[position, 0]) for name, value in self._parts.items()}
        self._parts["attention biases"] = self._biases / float(sigma[position, 0])
        self._parts["stream biases"] = float(self._wanted @ self._onward.constant / sigma[position, 0])
        foil = None if task.foil is None else task.foil.id
        self._parts |= readout.biases(self._target.id, foil)
        logits = ends["logits"]
        self._metric = float(uncapped(logits[position, self._target.id], readout.cap))
        if foil is not None:
            self._metric -= float(uncapped(logits[position, foil], readout.cap))
        ids = np.asarray([prediction.id for prediction in task.predictions])
        fixed = np.asarray([sum(readout.biases(int(id), None).values()) for id in ids])
        self._row_gap = np.abs(
            uncapped(logits[tokens, ids], readout.cap) - self._matrix.sum(-1) - self._rest / sigma[:, 0] - fixed
        )

    def answer(self) -> Answer:
        """Scores in logits, with the gap to the captured logit relative to the sum of all absolute contributions."""
        parts = tuple(
            (name, value) for name, value in self._parts.items() if value or not name.endswith(("biases", ".b", "b_U"))
        )
        size = float(np.abs(self._scores).sum() + sum(abs(value) for _, value in parts))
        missing = self._metric - float(self._scores.sum()) - sum(value for _, value in parts)
        gap: float | None = abs(missing) / size if size else abs(missing)
        warnings: tuple[str, ...] = ()
        if not np.isfinite(missing):
            gap = None
            warnings = (
                "The captured logit stands at its softcap, so that the uncapped one and the completeness gap cannot be told.",
            )
        elif gap is not None and gap > 10 * MANY:
            warnings = (f"The completeness gap is {gap:.0%}: this is not a decomposition of the logit.",)
        elif gap is not None and gap > MANY:
            warnings = (f"The completeness gap is {gap:.1%} of the sum of absolute contributions.",)
        notes: tuple[tuple[str, float | str], ...] = (("logit from the position's own embedding", self._own),)
        if np.isfinite(missing):
            notes = (("logit", self._metric), ("logit left unexplained", missing), *notes)
        if self._readout.cap is not None:
            notes += (("softcap", f"the uncapped logit is parted; the model caps it at ±{self._readout.cap:g}"),)
        if mixers := sorted(
            {
                m.kind
                for block in self._task.equations.spec.blocks
                for b in block.branches
                if isinstance(m := b.module, Mixer)
            }
        ):
            notes += (("credited to no token", f"the outputs of {', '.join(mixers)} branches, beside MLPs and biases"),)
        if np.isfinite(worst := float(self._row_gap.max())):
            notes += (("logit left unexplained at the worst position", worst),)
        return Answer(
            scores=self._scores,
            completeness_gap=gap,
            matrix=self._matrix,
            parts=parts,
            heads=self._heads if self._heads.size else None,
            layers=self._layers,
            warnings=warnings,
            notes=notes,
        )


DLA = Method(
    name="dla",
    title="Direct logit attribution",
    needs="T W",
    cost="(T d + T²) d_value H L",
    completeness="Σ scores + Σ parts = the captured logit (less the foil's; before a softcap), relative to the sum of absolute terms",
    source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Nanda & Bloom, TransformerLens `logit_attrs`",
    contract=Contract(
        output="logit of the target at the position, less the foil's where there is one, before a softcap",
        features="what attention heads move from each source position straight to the logit, and the position's own embedding",
        process="dot products of path outputs with the unembedding direction",
        fixed="attention patterns, gates and norm denominators; effects through later components are credited to those",
        unit="logits",
    ),
    fold=DlaFold,
    predictions=True,
)
