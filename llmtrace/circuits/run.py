"""Looks for motifs in a model: its patterns over a prompt set, scored head by head, then matched role by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import evolve, frozen

from llmtrace.circuits.ablation import Losses, judged, null_heads
from llmtrace.circuits.composition import Composition
from llmtrace.circuits.evidence import PROMPTS, Rung
from llmtrace.circuits.grammar import Edge, Node
from llmtrace.circuits.matching import instances
from llmtrace.circuits.motif import Expectation, Motif
from llmtrace.circuits.prompts import PromptSet, repeated, texts
from llmtrace.circuits.record import HeadMatch, MotifMatches, Motifs
from llmtrace.circuits.scoring import Scores, Scoring, heads_of, shuffles_of
from llmtrace.circuits.statistics import family_p, interval
from llmtrace.circuits.where import Where
from llmtrace.errors import CircuitError, LLMTraceError, OptionError, UnsupportedModelError
from llmtrace.model import Model, Prompt
from llmtrace.plugins import plugins
from llmtrace.progress import Progress, nothing_said
from llmtrace.schema.sites import Array

CHECKING = 8
"""Prompts of the built-in set that a check draws for itself."""


def motifs(
    model: Model,
    motifs: Sequence[Motif | str] | str | None = None,
    *,
    prompts: PromptSet | Sequence[Prompt] | None = None,
    seed: int = 0,
    check: bool = False,
    progress: Progress = nothing_said,
) -> Motifs:
    """Which heads of a model fulfil which motif: scored over prompts on eligible rows, with interval, chance and false-positive rate.

    `motifs` are rows or names (None: all that are built in or brought by plugins); `prompts` a set, or texts and lists of token ids
    (None: random tokens, repeated). A head matches a role where the whole 95 % interval of its score, over prompts, meets what the motif
    expects and lies above chance, and where heads for the other roles are there, in order, with the edges that are expected; over fewer
    than six prompts the mean decides, and the match counts as observed only. `check` puts each matched head at its mean, the other
    heads of its role being there already, on prompts of its own where the set is the built-in one, and compares what the loss gains with
    what random heads add: what holds is causal evidence.

    Raises `UnknownMethodError` for a name, `PromptError`, `CircuitError`, `UnsupportedModelError` for a model without attention, and
    with `check` `CapabilityError` where the backend makes no edits.
    """
    if seed < 0:
        raise OptionError(f"A seed is a whole number from 0 on, not {seed!r}.")
    wanted = [each if isinstance(each, Motif) else plugins().motif(each) for each in _all(motifs)]
    names = [motif.name for motif in wanted]
    if twice := [name for name in names if names.count(name) > 1]:
        raise CircuitError(f"Two motifs are named {twice[0]}: give each a name of its own.")
    heads = heads_of(model.spec)
    if not heads:
        raise UnsupportedModelError(f"No block of {model.info.source} has attention: there is no head to score.")
    chosen = repeated(model, seed=seed) if prompts is None else prompts
    over = chosen if isinstance(chosen, PromptSet) else texts(model, chosen)
    scores = _scored(model, heads, over, wanted, seed, progress)
    kappa = _Kappa(Composition(model.equations))
    sides = {where: _side(each, seed) for where, each in scores.items()}
    found = tuple(_matches(motif, model, sides, kappa) for motif in wanted)
    if not check:
        return Motifs(model.info, over, found, seed)
    fresh = repeated(model, seed=seed + 1, prompts=CHECKING) if prompts is None else over
    return Motifs(model.info, over, _checked(model, found, fresh, heads, seed, progress), seed, fresh)


def _all(motifs: Sequence[Motif | str] | str | None) -> Sequence[Motif | str]:
    if motifs is None:
        return list(plugins().motifs.values())
    return [motifs] if isinstance(motifs, str) else motifs


def _scored(
    model: Model, heads: tuple[Node, ...], over: PromptSet, wanted: Sequence[Motif], seed: int, progress: Progress
) -> dict[Where, Scores]:
    wheres = list(dict.fromkeys(where for motif in wanted for where in motif.where.values()))
    found: dict[Where, list[tuple[Array, ...]]] = {where: [] for where in wheres}
    shuffles = shuffles_of(max(map(len, over.prompts)))
    for number, ids in enumerate(over.prompts):
        progress(f"{model.info.source}: prompt {number + 1} of {len(over.prompts)}")
        scoring = Scoring(model.spec, ids, wheres, shuffles, np.random.default_rng([seed, 1, number]))
        model.fold(list(ids), [scoring])
        for where, each in scoring.found().items():
            found[where].append(each)
    stacked = {where: [np.stack(column) for column in zip(*each, strict=True)] for where, each in found.items()}
    return {where: Scores(heads, *columns) for where, columns in stacked.items()}


@frozen(eq=False)
class _Side:
    """What the prompts say of every head by one expression."""

    scores: Scores
    mean: Array
    """[head]; NaN where a prompt in which others have eligible rows has none (a sliding window), or where the pattern is not finite."""
    chance: Array
    """[head]"""
    ends: tuple[Array, Array] | None
    """Of the intervals, [head]; None of too few prompts."""
    p: Array | None
    """[head]"""
    kept: Array
    """The prompts that have eligible rows."""


def _side(scores: Scores, seed: int) -> _Side:
    kept = np.flatnonzero(scores.rows.any(-1))
    mass, chance = scores.mass[kept], scores.chance[kept]
    none = np.full(len(scores.heads), np.nan)
    if not len(kept):
        return _Side(scores, none, none, None, None, kept)
    sound = np.isfinite(mass).all(0)
    mean = np.where(sound, mass.mean(0), np.nan)
    if len(kept) < PROMPTS or not sound.any():
        return _Side(scores, mean, chance.mean(0), None, None, kept)
    lower, upper, p = none.copy(), none.copy(), none.copy()
    lower[sound], upper[sound] = interval(mass[:, sound], np.random.default_rng([seed, 2]))
    p[sound] = family_p((mass - chance)[:, sound], np.random.default_rng([seed, 2]))
    return _Side(scores, mean, chance.mean(0), (lower, upper), p, kept)


def _candidates(expected: Expectation, side: _Side) -> list[Node]:
    """The heads whose score meets an expectation, and is above chance where much is expected."""
    lower, upper = side.ends or (side.mean, side.mean)
    high = expected.comparison.startswith(">")
    return [
        node
        for node, low, up, chance in zip(side.scores.heads, lower, upper, side.chance, strict=True)
        if expected.surely((low, up)) and (not high or low > chance)
    ]


class _Kappa:
    """κ of edges, each once; None where it cannot be told, and why."""

    def __init__(self, composition: Composition) -> None:
        self._composition = composition
        self._found: dict[Edge, float | None] = {}
        self.untold = ""

    def __call__(self, edge: Edge) -> float | None:
        if edge not in self._found:
            try:
                self._found[edge] = self._composition.kappa(edge)
            except LLMTraceError as error:
                self._found[edge] = None
                self.untold = str(error)
        return self._found[edge]


def _matches(motif: Motif, model: Model, sides: Mapping[Where, _Side], kappa: _Kappa) -> MotifMatches:
    by_role = {role: sides[where] for role, where in motif.where.items()}
    candidates = {role: _candidates(motif.expect[role], side) for role, side in by_role.items()}
    found = instances(motif, candidates, kappa)
    matched = {role: {dict(each.roles)[role] for each in found} for role in motif.roles}
    heads = [
        _head(role, place, side)
        for role, side in by_role.items()
        for place, node in enumerate(side.scores.heads)
        if node in matched[role]
    ]
    order = {role: place for place, role in enumerate(motif.roles)}
    notes = []
    if any(value is None for each in found for _, value in each.edges):
        notes.append(f"edges are not tested: {kappa.untold}")
    undefined = [role for role, side in by_role.items() if not len(side.kept)]
    notes += [
        f"no prompt has a row where {role} is defined ({motif.where[role]}), so its score is undefined"
        for role in undefined
    ]
    notes += [
        f"{left} of {len(side.mean)} heads have no score as {role}: in some prompt they have no eligible row, or their pattern is not finite"
        for role, side in by_role.items()
        if role not in undefined and (left := int(np.isnan(side.mean).sum()))
    ]
    if any(block.attention and (block.attention.masked or block.attention.selective) for block in model.spec.blocks):
        notes.append(
            "what the tokens are hides keys in some blocks, and chance counts those as seen: uniform attention comes to more than it there"
        )
    rate = None
    if not undefined:
        try:
            rate = _false_positives(motif, by_role)
        except CircuitError as error:
            notes.append(f"the false-positive rate is not told, since edges do not count there: {error}")
    return MotifMatches(
        motif,
        tuple(sorted(heads, key=lambda match: (order[match.role], -match.score, match.layer, match.head))),
        tuple(found if len(motif.roles) > 1 else ()),
        rate,
        {role: _map(model, side) for role, side in by_role.items()},
        tuple(notes),
    )


def _head(role: str, place: int, side: _Side) -> HeadMatch:
    effects = (side.scores.mass - side.scores.chance)[side.kept, place]
    spread = float(effects.std(ddof=1)) if len(effects) > 1 else 0.0
    return HeadMatch(
        role,
        side.scores.heads[place],
        float(side.mean[place]),
        None if side.ends is None else (float(side.ends[0][place]), float(side.ends[1][place])),
        float(side.chance[place]),
        float(effects.mean()),
        float(effects.mean()) / spread if spread else None,
        None if side.p is None else float(side.p[place]),
        int(side.scores.rows[:, place].sum()),
        len(side.kept),
        Rung.OBSERVED if side.ends is None else Rung.REPLICATED,
    )


def _false_positives(motif: Motif, sides: Mapping[str, _Side]) -> float:
    """The share of heads that would match, in any role, if what each row sees stood in random order; edges are not asked for."""
    count = 0
    first = next(iter(sides.values())).scores
    heads, shuffles = first.heads, int(first.shuffled.shape[1])
    for shuffle in range(shuffles):
        drawn = {role: side.scores.shuffled[side.kept, shuffle].mean(0) for role, side in sides.items()}
        candidates = {
            role: [node for node, score in zip(heads, mean, strict=True) if motif.expect[role].met(score)]
            for role, mean in drawn.items()
        }
        found = instances(motif, candidates, lambda edge: None)
        count += len({node for each in found for _, node in each.roles})
    return count / (shuffles * len(heads))


def _map(model: Model, side: _Side) -> Array:
    """Mean scores as [layer head]."""
    widest = 1 + max(node.head or 0 for node in side.scores.heads)
    scores = np.full((len(model.spec.blocks), widest), np.nan)
    for node, score in zip(side.scores.heads, side.mean, strict=True):
        scores[node.layer or 0, node.head or 0] = score
    return scores


def _checked(
    model: Model,
    found: tuple[MotifMatches, ...],
    over: PromptSet,
    heads: tuple[Node, ...],
    seed: int,
    progress: Progress,
) -> tuple[MotifMatches, ...]:
    """The same with heads put at their means, one after another."""
    claimed = {match.node for each in found if each.motif.check for match in each.heads}
    groups = {
        each.motif.name: [match.node for match in each.heads if match.role == check.ablate]
        for each in found
        if (check := each.motif.check)
    }
    if not any(groups.values()):
        return found
    null = null_heads(heads, sorted(claimed, key=str), seed)
    losses = Losses(model, over)

    def raised(each: MotifMatches, match: HeadMatch) -> HeadMatch:
        check = each.motif.check
        if check is None or match.role != check.ablate:
            return match
        peers = [node for node in groups[each.motif.name] if node != match.node]
        progress(f"{model.info.source}: {each.motif.name}, {match.node} ablated")
        changes, alone = losses.change(match.node, peers), losses.change(match.node)
        random = []
        for number, node in enumerate(null):
            progress(
                f"{model.info.source}: {each.motif.name}, random head {number + 1} of {len(null)} for {match.node}"
            )
            random.append(losses.change(node, peers))
        ablation = judged(check, changes, random, alone, seed)
        causal = ablation.held and match.rung >= Rung.REPLICATED
        return evolve(match, ablation=ablation, rung=Rung.CAUSAL if causal else match.rung)

    return tuple(evolve(each, heads=tuple(raised(each, match) for match in each.heads)) for each in found)
