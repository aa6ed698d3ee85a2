"""What a search for motifs finds. **Match**: a head that plays a role; **instance**: heads that play all roles of a motif together;
**effect**: a score less its chance level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from llmtrace.circuits.evidence import Rung
from llmtrace.circuits.grammar import Edge, Node
from llmtrace.circuits.motif import Motif
from llmtrace.circuits.prompts import PromptSet
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.sites import Array
from llmtrace.trace import ModelInfo


@frozen
class Ablation:
    """What came of putting one head at its mean, on the prompts of the check."""

    effect: float
    """Mean change of the metric over prompts, in its unit (nats for `nll`), when the head goes and the other heads of its role are gone
    already: heads that back each other up hide each other's effect."""
    interval: tuple[float, float]
    """Of that, over prompts, 95 %."""
    size: float | None
    """`effect / sd over prompts`; None where there is no spread."""
    random_heads: int
    """Heads of the null: drawn at random from those that no motif with a check was matched by."""
    random_mean: float | None
    """Mean of their effects, each in this head's place; None where there is no such head."""
    random_largest: float | None
    """The largest of their effects."""
    p: float
    """`(1 + #{random heads whose effect is as large}) / (1 + random heads)`, of this head alone: not corrected for how many heads are checked."""
    alone: float
    """Mean change when it goes alone."""
    prompts: int
    """On how many prompts."""
    held: bool
    """Whether the whole interval is as the motif's check expects, and larger than random heads' effects: p <= 0.05, or, where the model
    has too few other heads for that, larger than all of them."""


@frozen
class HeadMatch:
    """One head in one role."""

    role: str
    node: Node
    score: float
    """Mean attention mass on the role's keys: over eligible rows, then over prompts."""
    interval: tuple[float, float] | None
    """Of that, over prompts, 95 %; None of too few prompts."""
    chance: float
    """What uniform attention would give on the same rows."""
    effect: float
    """`score - chance`"""
    size: float | None
    """`effect / sd over prompts`; None where there is no spread."""
    p: float | None
    """Of the effect, corrected for all heads of the model (sign-flip over prompts, max-T); None of too few prompts."""
    rows: int
    """Eligible rows, of all prompts."""
    prompts: int
    """Prompts that have any."""
    rung: Rung
    """How far the evidence goes."""
    ablation: Ablation | None = None
    """None: not made."""

    @property
    def layer(self) -> int:
        """The block that it stands in."""
        return self.node.layer or 0

    @property
    def head(self) -> int:
        """Its number there."""
        return self.node.head or 0


@frozen
class Instance:
    """Heads that play all roles of a motif together."""

    roles: tuple[tuple[str, Node], ...]
    """Who plays which."""
    edges: tuple[tuple[Edge, float | None], ...] = ()
    """Who reads whom, with the normalised composition κ; None where no weights could be read: then the edge is not tested."""


@frozen(eq=False, repr=False)
class MotifMatches:
    """One motif in one model."""

    motif: Motif
    heads: tuple[HeadMatch, ...]
    """The best first, role by role, in the motif's order of roles."""
    instances: tuple[Instance, ...]
    """Of motifs with several roles; the one whose weakest edge is the strongest first."""
    false_positives: float | None
    """Share of heads that match where each row is in random order, by their mean score alone; None where it is undefined (a note says why)."""
    scores: Mapping[str, Array]
    """Role to the scores of all heads, [layer head]; NaN where a layer has fewer, or a head has no score (a note says why)."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""

    @property
    def leading(self) -> tuple[HeadMatch, ...]:
        """Those of the last role, to which the others lead."""
        return tuple(match for match in self.heads if match.role == self.motif.roles[-1])

    def __repr__(self) -> str:
        """`<MotifMatches induction: a18.h6 0.84, a17.h4 0.73>`"""
        heads = ", ".join(f"{match.node} {match.score:.2f}" for match in self.leading[:6])
        return f"<MotifMatches {self.motif.name}: {heads or 'none'}>"


@frozen(eq=False, repr=False)
class Motifs:
    """Which heads of a model fulfil which motif."""

    model: ModelInfo
    prompts: PromptSet
    """What was run."""
    found: tuple[MotifMatches, ...]
    """In the order of the motifs."""
    seed: int
    """Of every random choice."""
    checked_on: PromptSet | None = None
    """The prompts on which heads were ablated; None where that was not done."""
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)
    """Of the sites that were read."""

    @property
    def checked(self) -> bool:
        """Whether heads were ablated."""
        return self.checked_on is not None

    def __getitem__(self, name: str) -> MotifMatches:
        """One motif's matches, by its name. Raises `KeyError`."""
        for each in self.found:
            if each.motif.name == name:
                return each
        raise KeyError(f"{name}: looked for were {', '.join(each.motif.name for each in self.found)}")

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace circuit motifs --json` prints: plain lists, numbers, strings, no NaN."""
        from llmtrace.circuits.document import motifs_document

        return motifs_document(self)

    def __repr__(self) -> str:
        """One line a motif: its strongest heads."""
        lines = [f"<Motifs of {self.model.source}, {self.prompts.about}>"]
        lines += [repr(each) for each in self.found]
        return "\n".join(lines)
