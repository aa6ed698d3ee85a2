"""Mechanisms of two models beside each other, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtrace.cli.output import line, table

if TYPE_CHECKING:
    from llmtrace.comparison.mechanisms import InfluenceAgreement, LensAgreement, Mechanisms, MotifAgreement

HEADS = (
    "prompt",
    "influence by",
    "rank correlation",
    "lowest",
    "lens",
    "largest change, nats",
    "settles (reference, candidate)",
)


def show_mechanisms(found: Mechanisms) -> None:
    """The sentence, then motif by motif and prompt by prompt."""
    line()
    line(found.words)
    for note in found.notes:
        line(f"note: {note}")
    if found.motifs:
        line()
        head = ("motif", "rank correlation", "heads kept", "largest change", "gained")
        table(head, [_motif(each) for each in found.motifs], right=head[1:2])
        line(f"motifs are scored on {found.prompts}")
    maps = {each.prompt: each for each in found.influence}
    lenses = {each.prompt: each for each in found.lens}
    rows = [[str(each + 1), *_map(maps.get(each)), *_lens(lenses.get(each))] for each in sorted({*maps, *lenses})]
    if rows:
        line()
        table(HEADS, rows, right=HEADS[2:3])


def _map(each: InfluenceAgreement | None) -> list[str]:
    if each is None:
        return ["–", "–", "–"]
    return [each.method, f"{each.mean:.3f}", f"{each.worst:.3f} at {each.worst_position}"]


def _lens(each: LensAgreement | None) -> list[str]:
    if each is None:
        return ["–", "–", "–"]
    settles = f"{each.settles_reference or 'nowhere'}, {each.settles_candidate or 'nowhere'}"
    return [f"{each.correlation:.3f}", f"{each.largest:.2f} at {each.largest_at}", settles]


def _motif(each: MotifAgreement) -> list[str]:
    kept = len(each.heads) - len(each.lost)
    moved = max(each.heads, key=lambda head: abs(head.candidate - head.reference), default=None)
    change = "" if moved is None else f"{moved.node} {moved.reference:.3f} → {moved.candidate:.3f}"
    gained = ", ".join(each.gained[:3]) + (f" and {len(each.gained) - 3} more" if len(each.gained) > 3 else "")
    correlation = "undefined" if each.correlation is None else f"{each.correlation:.3f}"
    return [each.motif, correlation, f"{kept} of {len(each.heads)}", change, gained]
