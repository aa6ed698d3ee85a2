"""Tables for a terminal, of whatever has rows: named head scores, the lens, the signals of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from llmtrace.view.figures import probability, ranks
from llmtrace.view.signals import groups
from llmtrace.view.visible import named

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import HeadScore
    from llmtrace.trace import Trace


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table without lines; the cells are text, never markup, and columns named in `right` are flush right."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        grid.add_column(Text(heading), justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def heads_table(scores: Sequence[HeadScore], best: int = 5) -> Table:
    """The best heads of each named behaviour, with the score that uniform attention would have and the rows it was taken over."""
    names = dict.fromkeys(score.name for score in scores)
    rows = []
    for name in names:
        own = [score for score in scores if score.name == name]
        own.sort(key=lambda s: (s.score is None, -(s.score or 0.0), s.layer, s.head))
        rows += [
            (name, str(s.layer), str(s.head), _number(s.score), _number(s.chance), str(s.rows)) for s in own[:best]
        ]
    headings = ("behaviour", "layer", "head", "score", "chance", "eligible rows")
    return table(headings, rows, right=headings[1:])


def lens_table(lens: Lens) -> Table:
    """What each point of the stream would predict, in probabilities; a rank that equally likely tokens share is a span, `1-16`."""
    rows = [
        (
            reading.site,
            ranks(reading.target_ranks),
            probability(reading.target_probability),
            "  ".join(f"{named(token.text, token.id)} {probability(share)}" for token, share in reading.top),
        )
        for reading in lens.layers
    ]
    headings = ("site", "target rank", "its probability", "most likely")
    return table(headings, rows, right=headings[1:3])


def signals_table(trace: Trace) -> Table:
    """The recorded signals, layers alike in one row; a row's name is a pattern that a selection takes."""
    rows = [(g.site, g.axes, g.dtype, f"{g.bytes:,}", g.provenance, g.precision) for g in groups(trace)]
    return table(("site", "axes", "type", "bytes", "where from", "computed in"), rows, right=("bytes",))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
