"""Whether two models that give the same answers give them for the same reasons. **Rank correlation**: Spearman's ρ, equal values sharing
their mean rank; **kept**: a head of the reference's whose effect in the candidate is at least half of what it was.
"""

from __future__ import annotations

from attrs import frozen

LOW = 0.8
"""A rank correlation below which two influence maps, or two trajectories of the lens, say something else."""
HALF = 0.5
"""The share of a head's effect that must be left for it to count as kept."""
ALIKE = 0.9
"""The share of positions with the same prediction from which on the models are said to agree on the answer."""


@frozen
class InfluenceAgreement:
    """The influence maps of one prompt beside each other, position by position."""

    prompt: int
    """Which one, from 0."""
    method: str
    """By which both were made."""
    positions: int
    """Positions that were compared: those with at least five source tokens."""
    mean: float
    """Of the rank correlations of their rows."""
    worst: float
    """The lowest of them."""
    worst_position: int
    """Where that is."""
    same_answer: int
    """Positions at which both predict the same token."""
    other_reasons: tuple[int, ...]
    """Of those, the ones whose rows correlate below `LOW`."""


@frozen
class HeadAgreement:
    """One head that plays a role in the reference, and what it does in the candidate."""

    role: str
    node: str
    """`a18.h6`"""
    reference: float
    """Its score there."""
    candidate: float
    """Its score here."""
    chance: float
    """What uniform attention would give."""
    kept: bool
    """Whether at least half of the effect is left."""


@frozen
class MotifAgreement:
    """One motif in both."""

    motif: str
    """Its name."""
    correlation: float | None
    """Rank correlation of the scores of all heads, of the motif's last role; None where they are undefined, or are so on one side."""
    heads: tuple[HeadAgreement, ...]
    """Those that match in the reference, the best of each role first."""
    gained: tuple[str, ...]
    """Those that match in the candidate only, by node."""

    @property
    def lost(self) -> tuple[HeadAgreement, ...]:
        """Those that are not kept."""
        return tuple(head for head in self.heads if not head.kept)


@frozen
class LensAgreement:
    """What the points of the stream predict, of the reference's prediction at the end of one prompt."""

    prompt: int
    """Which one, from 0."""
    correlation: float
    """Rank correlation of the token's probability over the points."""
    largest: float
    """The most by which its log-probability differs at a point, in nats."""
    largest_at: str
    """That point's site."""
    settles_reference: str
    """The first point from which on the token ranks first; empty where it does not at the end."""
    settles_candidate: str
    """The same in the candidate."""
    same_answer: bool
    """Whether the candidate predicts it as well."""


@frozen
class Mechanisms:
    """How a candidate comes to its answers, beside the reference."""

    influence: tuple[InfluenceAgreement, ...]
    """Prompt by prompt; empty where no method could be had on both sides (a note says why)."""
    motifs: tuple[MotifAgreement, ...]
    """Motif by motif; empty where they could not be had on both sides (a note says why)."""
    prompts: str
    """What the motifs were scored on, in words; empty where they were not."""
    lens: tuple[LensAgreement, ...]
    """Prompt by prompt."""
    same_answer: float | None
    """Share of positions at which both predict the same token, or one that is as likely; None where no predictions could be compared."""
    findings: tuple[str, ...]
    """What differs, in words."""
    notes: tuple[str, ...] = ()
    """What could not be had."""

    @property
    def flagged(self) -> bool:
        """Whether the models agree on the answer and disagree on the reasons."""
        return bool(self.findings) and self.same_answer is not None and self.same_answer >= ALIKE

    @property
    def words(self) -> str:
        """One line."""
        scored = any(each.heads or each.correlation is not None for each in self.motifs)
        if not (self.influence or scored or self.lens):
            return "no mechanisms could be compared"
        known = self.same_answer is not None
        share = (
            f"{self.same_answer:.0%} of the predictions are the same" if known else "the predictions cannot be compared"
        )
        if not self.findings:
            reasons = "the reasons that could be compared" if self.notes else "the reasons"
            return f"the same mechanisms: {share}, " + (
                f"and so are {reasons}" if known else f"but {reasons} are the same"
            )
        return f"{'OTHER REASONS' if self.flagged else 'other mechanisms'}: {share}, but {'; '.join(self.findings)}"
