"""Asks two open models how they come to their answers: influence maps, motifs, the lens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmtrace.circuits import Motifs, motifs
from llmtrace.circuits.scoring import heads_of
from llmtrace.comparison.mechanisms import (
    HALF,
    LOW,
    HeadAgreement,
    InfluenceAgreement,
    LensAgreement,
    Mechanisms,
    MotifAgreement,
)
from llmtrace.comparison.outputs import TIED, Outputs
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.errors import LLMTraceError, OptionError
from llmtrace.influence import Influence, Lens, influence, lens
from llmtrace.model import Model
from llmtrace.progress import Progress
from llmtrace.schema.sites import Array
from llmtrace.words import counted

METHODS = ("alti", "rollout")
"""Which method makes the maps: the first that both sides take."""
STEP = 1e-3
"""What is nearer to each other shares a rank: scores as shares of a row's largest, attention mass, log-probabilities in nats."""
SOURCES = 5
"""Source tokens from which on a row of a map has an order that can be compared."""


class Reasons:
    """The reference's, each found once for all candidates."""

    def __init__(self, reference: Side, runs: Sequence[Run], progress: Progress) -> None:
        self._model, self._runs, self._progress = _open(reference), runs, progress
        self._maps: dict[tuple[str, int], Influence] = {}
        self._lenses: list[Lens] = []
        self._motifs: Motifs | None = None

    def beside(self, candidate: Side, predicted: Sequence[Outputs]) -> Mechanisms:
        """A candidate's beside them; `predicted` is how far its predictions are. Raises `OptionError` for a trace, which cannot be asked."""
        theirs = _open(candidate)
        maps, no_maps = self._influence(theirs)
        lenses, no_lens = self._lens(theirs)
        found, about, no_motifs = self._found(theirs)
        tokens = sum(each.tokens for each in predicted)
        same = sum(each.same_top * each.tokens for each in predicted) / tokens if tokens else None
        notes = tuple(filter(None, [no_maps, no_motifs, no_lens]))
        return Mechanisms(maps, found, about, lenses, same, tuple(_findings(maps, found, lenses)), notes)

    def _influence(self, theirs: Model) -> tuple[tuple[InfluenceAgreement, ...], str]:
        """By the first method that both sides take, or none and why."""
        why = ""
        for method in METHODS:
            try:
                pairs = [
                    (self._our_map(method, run.number), self._map(theirs, method, run.number)) for run in self._runs
                ]
            except LLMTraceError as error:
                why = f"influence maps are not compared: {error}"
                continue
            found = tuple(filter(None, (_maps_agree(number, *pair) for number, pair in enumerate(pairs))))
            return found, "" if found else f"influence maps are not compared: no prompt has {SOURCES} tokens"
        return (), why

    def _our_map(self, method: str, number: int) -> Influence:
        if (method, number) not in self._maps:
            self._maps[method, number] = self._map(self._model, method, number)
        return self._maps[method, number]

    def _map(self, model: Model, method: str, number: int) -> Influence:
        self._progress(f"{model.info.source}: influence, prompt {number + 1} of {len(self._runs)}")
        return influence(model, list(self._runs[number].ids), (method,))[0]

    def _lens(self, theirs: Model) -> tuple[tuple[LensAgreement, ...], str]:
        self._progress(f"{theirs.info.source}: the lens")
        try:
            self._lenses = self._lenses or [lens(self._model, list(run.ids)) for run in self._runs]
            own = [
                lens(theirs, list(run.ids), target=one.target.id)
                for run, one in zip(self._runs, self._lenses, strict=True)
            ]
        except LLMTraceError as error:
            return (), f"the lens is not compared: {error}"
        pairs = enumerate(zip(self._lenses, own, strict=True))
        return tuple(_lenses_agree(number, one, two) for number, (one, two) in pairs), ""

    def _found(self, theirs: Model) -> tuple[tuple[MotifAgreement, ...], str, str]:
        """With what they were scored on, or none and why."""
        if heads_of(theirs.spec) != heads_of(self._model.spec):
            return (), "", "motifs are not compared: the candidate has other heads than the reference"
        try:
            ours = self._motifs = self._motifs or motifs(self._model, progress=self._progress)
            own = motifs(theirs, prompts=ours.prompts, progress=self._progress)
        except LLMTraceError as error:
            return (), "", f"motifs are not compared: {error}"
        return _motifs_agree(ours, own), ours.prompts.about, ""


def _open(side: Side) -> Model:
    if side.model is None:
        raise OptionError(f"{side.name} is a saved trace: mechanisms are asked of models that can be run.")
    return side.model


def spearman(one: Array, two: Array) -> float:
    """Rank correlation of two vectors, equal values sharing their mean rank; 1 where both are constant, 0 where one is.

    Spearman 1904; as `scipy.stats.spearmanr`, but for constants, of which that says NaN.
    """
    a, b = _ranks(one), _ranks(two)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size:
        return float(a @ b) / size
    return float(not a.any() and not b.any())


def _coarse(values: Array) -> Array:
    """In steps of `STEP`, so that rounding does not order what is equal."""
    return np.asarray(np.round(values / STEP))


def _ranks(values: Array) -> Array:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], np.float64)


def _maps_agree(number: int, one: Influence, two: Influence) -> InfluenceAgreement | None:
    def row(found: Array, place: int) -> Array:
        scores = found[place, : place + 1]
        return _coarse(scores / (np.abs(scores).max() or 1))

    rows = range(SOURCES - 1, len(one.tokens))
    if one.matrix is None or two.matrix is None or not rows:
        return None
    found = {place: spearman(row(one.matrix, place), row(two.matrix, place)) for place in rows}
    same = [place for place in rows if one.predictions[place].id == two.predictions[place].id]
    worst = min(found, key=found.__getitem__)
    return InfluenceAgreement(
        number,
        one.method,
        len(found),
        float(np.mean(list(found.values()))),
        found[worst],
        worst,
        len(same),
        tuple(place for place in same if found[place] < LOW),
    )


def _lenses_agree(number: int, one: Lens, two: Lens) -> LensAgreement:
    ours, theirs = (
        np.log(np.maximum([point.target_probability for point in each.layers], 1e-300)) for each in (one, two)
    )
    apart = np.abs(ours - theirs)
    at = int(apart.argmax())
    return LensAgreement(
        number,
        spearman(_coarse(ours), _coarse(theirs)),
        float(apart[at]),
        one.layers[at].site,
        _settles(one),
        _settles(two),
        bool(np.log(two.layers[-1].top[0][1]) - theirs[-1] <= TIED),
    )


def _settles(found: Lens) -> str:
    """The first point from which on the target ranks first."""
    site = ""
    for point in reversed(found.layers):
        if point.target_rank != 1:
            break
        site = point.site
    return site


def _motifs_agree(ours: Motifs, theirs: Motifs) -> tuple[MotifAgreement, ...]:
    found = []
    for one in ours.found:
        two = theirs[one.motif.name]
        role = one.motif.roles[-1]
        a, b = one.scores[role].ravel(), two.scores[role].ravel()
        sound = np.isfinite(a)
        known = sound.any() and np.array_equal(sound, np.isfinite(b))
        heads = []
        for match in one.heads:
            score = float(two.scores[match.role][match.layer, match.head])
            left = (score - match.chance) * (1 if match.effect > 0 else -1)  # a motif may expect less than chance
            kept = left >= HALF * abs(match.effect)
            heads.append(HeadAgreement(match.role, str(match.node), match.score, score, match.chance, kept))
        before = {(match.role, match.node) for match in one.heads}
        gained = dict.fromkeys(str(match.node) for match in two.heads if (match.role, match.node) not in before)
        correlation = spearman(_coarse(a[sound]), _coarse(b[sound])) if known else None
        found.append(MotifAgreement(one.motif.name, correlation, tuple(heads), tuple(gained)))
    return tuple(found)


def _findings(
    maps: Sequence[InfluenceAgreement], found: Sequence[MotifAgreement], lenses: Sequence[LensAgreement]
) -> list[str]:
    """What differs, in words."""
    rows = sum(len(each.other_reasons) for each in maps)
    said = []
    if rows:
        of = sum(each.same_answer for each in maps)
        worst = min(maps, key=lambda each: each.worst)
        said.append(
            f"at {rows} of {counted(of, 'position')} with the same prediction the influence maps correlate below {LOW:g} "
            f"(lowest of all positions {worst.worst:.2f}, prompt {worst.prompt + 1}, position {worst.worst_position})"
        )
    for each in found:
        if each.lost:
            names = ", ".join(f"{head.node} {head.reference:.2f} → {head.candidate:.2f}" for head in each.lost[:3])
            match = "matches" if len(each.gained) == 1 else "match"
            instead = f", and {', '.join(each.gained[:3])} {match} instead" if each.gained else ""
            heads, gone = counted(len(each.heads), "head"), "is gone" if len(each.lost) == 1 else "are gone"
            said.append(f"{len(each.lost)} of {heads} of {each.motif} {gone} ({names}){instead}")
    apart = [each for each in lenses if each.same_answer and each.correlation < LOW]
    if apart:
        worst_lens = min(apart, key=lambda each: each.correlation)
        said.append(
            f"the lens takes another way in {len(apart)} of {counted(len(lenses), 'prompt')} "
            f"(lowest rank correlation {worst_lens.correlation:.2f}, prompt {worst_lens.prompt + 1})"
        )
    return said
