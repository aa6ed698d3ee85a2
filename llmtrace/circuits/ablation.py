"""What a model loses without a head: the causal check of a match. **Peers**: the other heads that match the same role; **null**: the same
of heads drawn at random, of those that no motif with a check was matched by.

Heads back each other up, so that one of several may be missed by nobody. What a head does is therefore what the loss gains when it goes as
well, its peers gone already, and random heads go in its place (minimality, with all peers as K: Wang et al. 2022, section 4.2). What its going
alone does stands beside it.

**Mean ablation**: in every position what a head hands to `W_O` (`z_post`) is put at its mean over all positions of the prompts (Wang et al.
2022, arXiv 2211.00593, section 2.1), and the mean loss over the scored rows is taken again. Zero is far from anything that a head ever
hands on, so that zeroing breaks a model at heads whose mean it leans on, and the null is wide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from llmtrace.circuits.evidence import PROMPTS
from llmtrace.circuits.grammar import Node
from llmtrace.circuits.motif import Check
from llmtrace.circuits.prompts import PromptSet
from llmtrace.circuits.record import Ablation
from llmtrace.circuits.statistics import interval
from llmtrace.edits import Edit, replace
from llmtrace.errors import CircuitError, PromptError
from llmtrace.model import Model
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.functions import log_softmax
from llmtrace.schema.sites import Array
from llmtrace.selection import select

RANDOM_HEADS = 19
"""Of the null: the smallest p is then 0.05, of a head that does more than all of them."""
SIGNIFICANT = 0.05
TOGETHER = 8
"""Prompts that run at once where the backend can: their logits are held at the same time."""
LOGITS = 2**27
"""Numbers of those, at most: fewer prompts run at once where they are long."""


class Losses:
    """The mean loss of each prompt with some heads put at their means, in nats; each set of heads is run once."""

    def __init__(self, model: Model, prompts: PromptSet) -> None:
        if len(prompts.prompts) < PROMPTS or not all(prompts.scored):
            short = sum(not rows for rows in prompts.scored)
            raise PromptError(
                f"Ablations are judged over at least {PROMPTS} prompts, each of two tokens or more, and there are {len(prompts.prompts)}, "
                f"{short} of them shorter: give others, or none for the built-in set."
            )
        self._model, self._prompts = model, prompts
        self._means = _Means(model.equations)
        for ids in prompts.prompts:
            model.fold(list(ids), [self._means])
        self._losses: dict[frozenset[Node], Array] = {}

    def without(self, nodes: Collection[Node]) -> Array:
        """The loss without some heads, [prompt]."""
        gone = frozenset(nodes)
        if gone not in self._losses:
            edits = [
                replace(site, mean, heads=[node.head or 0])
                for node in sorted(gone, key=str)
                for site, mean in [self._means.of(node)]
            ]
            found = self._run(edits)
            if not np.isfinite(found).all():
                without = f" without {', '.join(sorted(map(str, gone)))}" if gone else ""
                raise CircuitError(
                    f"The loss of prompt {int(np.isfinite(found).argmin()) + 1}{without} is not finite: what heads do cannot be told."
                )
            self._losses[gone] = found
        return self._losses[gone]

    def change(self, node: Node, peers: Collection[Node] = ()) -> Array:
        """What a head's going adds to the loss, its peers gone already, [prompt]."""
        return np.asarray(self.without({*peers, node}) - self.without(set(peers) - {node}))

    def _run(self, edits: Sequence[Edit]) -> Array:
        losses: dict[int, float] = {}
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, rows in enumerate(self._prompts.scored):
            alike.setdefault(rows, []).append(number)
        for rows, numbers in alike.items():
            at_once = max(1, min(TOGETHER, LOGITS // (len(rows) * self._model.spec.vocab)))
            for first in range(0, len(numbers), at_once):
                some = numbers[first : first + at_once]
                prompts = [self._prompts.prompts[number] for number in some]
                traces = self._model.trace_many(prompts, capture=select("logits", tokens=rows), edits=edits)
                for number, ids, trace in zip(some, prompts, traces, strict=True):
                    losses[number] = nll(trace["logits"].array, [ids[row + 1] for row in rows])
        return np.array([losses[number] for number in range(len(self._prompts.prompts))])


class _Means:
    """A fold that averages what each head hands on, over all positions of the prompts."""

    def __init__(self, equations: Equations) -> None:
        self.sites: Collection[str] = tuple(site for site in equations.steps if site.endswith(".attn.z_post"))
        self._sums: dict[str, Array] = {}
        self._positions: dict[str, int] = {}

    def layer(self, layer: int, signals: Signals) -> None:
        """Add one block's."""
        for site, array in signals.items():
            self._sums[site] = self._sums.get(site, 0.0) + array.astype(np.float64).sum(0)
            self._positions[site] = self._positions.get(site, 0) + len(array)

    def finish(self, ends: Signals) -> None:
        """No head stands at the ends."""

    def of(self, node: Node) -> tuple[str, Array]:
        """The site that a head hands on at, and its mean there, [d_value]."""
        site = f"blocks.{node.layer}.attn.z_post"
        return site, self._sums[site][node.head or 0] / self._positions[site]


def nll(logits: Array, following: Sequence[int]) -> float:
    """Mean of `-ln p(next token)`, in nats, of logits [token vocab]."""
    return float(-log_softmax(logits)[np.arange(len(logits)), np.asarray(following)].mean())


def null_heads(heads: Sequence[Node], taken: Sequence[Node], seed: int) -> list[Node]:
    """Heads of the null: `RANDOM_HEADS` of those that are not taken, or all of them where there are fewer."""
    free = [node for node in heads if node not in set(taken)]
    order = np.random.default_rng([seed, 3]).permutation(len(free))[:RANDOM_HEADS]
    return [free[place] for place in sorted(order)]


def judged(check: Check, changes: Array, null: Sequence[Array], alone: Array, seed: int) -> Ablation:
    """What a head's ablation says: its changes [prompt] beside those of random heads, and what it does alone."""
    effect = float(changes.mean())
    lower, upper = (float(end) for end in interval(changes, np.random.default_rng([seed, 4])))
    sign = -1.0 if check.effect.comparison.startswith("<") else 1.0
    others = np.array([float(each.mean()) for each in null])
    reached = int((sign * others >= sign * effect).sum())
    p = (1 + reached) / (1 + len(others))
    beyond = p <= SIGNIFICANT or (not reached and 0 < len(others) < 1 / SIGNIFICANT - 1)
    spread = float(changes.std(ddof=1))
    return Ablation(
        effect,
        (lower, upper),
        effect / spread if spread else None,
        len(others),
        float(others.mean()) if len(others) else None,
        float((sign * others).max() * sign) if len(others) else None,
        p,
        float(alone.mean()),
        len(changes),
        bool(check.effect.surely((lower, upper)) and beyond),
    )
