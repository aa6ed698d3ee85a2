"""Influence in a terminal. **Heat line**: the prompt with its tokens shaded by score; without colours, a table says the same.

Tokens are shown with their shapeless characters as marks, so that no token can move the cursor or recolour the screen.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmtrace.errors import OptionError
from llmtrace.view.colours import DARK, level, shade
from llmtrace.view.sentence import ANY, sentence, source, standings, subject, verb
from llmtrace.view.tables import heads_table, lens_table
from llmtrace.view.visible import named, runs

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.trace import Token

ROWS = 64
"""Tokens that a plain table lists."""
BAR = 24
"""Characters of the longest bar."""


def summary(influence: Influence) -> str:
    """Method, what it explains and the three strongest sources, in one line."""
    sources = ", ".join(
        f"{source(influence.tokens, place)} ({influence.scores[place]:.2g})" for place in strongest(influence, 3)
    )
    whatever = "" if influence.aims else f", {ANY}"
    return f"<Influence {influence.method}: {subject(influence)} {verb(influence)} {sources or 'no token'}{whatever}>"


def strongest(influence: Influence, count: int) -> list[int]:
    """The positions with the largest scores by size, without those of zero; equal ones in order."""
    scores = influence.scores
    order = sorted(range(len(scores)), key=lambda place: (-abs(float(scores[place])), place))
    return [place for place in order if scores[place] and not math.isnan(scores[place])][:count]


def heat_line(influence: Influence, console: Console, sources: int = 5) -> None:
    """Print the prompt shaded by score, a legend and the strongest sources; a plain table where the console has no colours.

    The table lists every token up to 64, of longer prompts the strongest 64.
    """
    console.print(Text(sentence(influence), style="bold"), soft_wrap=True)
    if coloured(console):
        console.print(shaded(influence))
        console.print(legend(influence))
        console.print(sources_table(influence, strongest(influence, sources)))
        return
    count = len(influence.tokens)
    if count > ROWS:
        console.print(Text(f"the {ROWS} strongest of {count} tokens, in their order"))
    console.print(sources_table(influence, sorted(strongest(influence, ROWS)) if count > ROWS else range(count)))


def coloured(console: Console) -> bool:
    """Whether shades can be seen there: it is a terminal with colours, and `NO_COLOR` is not set."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def shaded(influence: Influence) -> Text:
    """The tokens on shades of the dark scale, marks faint, the target underlined."""
    top = _top(influence)
    line = Text()
    for place, (token, score) in enumerate(zip(influence.tokens, influence.scores, strict=True)):
        back, ink = shade(level(float(score), top), "n" if score < 0 else "p", DARK)
        style = f"{ink} on {back}" + (" underline" if place == influence.position else "")
        for at, run in enumerate(_runs(token)):
            line.append(run, style + (" dim" if at % 2 else ""))
        line.append(" ")
    return line


def _runs(token: Token) -> list[str]:
    return runs(token.text, token.bytes) if token.text or token.bytes else ["", f"#{token.id}"]


def _top(influence: Influence) -> float:
    return max((abs(float(score)) for score in influence.scores if not math.isnan(score)), default=0.0)


def legend(influence: Influence) -> Text:
    """The shades from 0 to the strongest score, or from minus to plus."""
    top = _top(influence)
    signed = any(score < 0 for score in influence.scores)
    line = Text(f"{-top:.2g} " if signed else "0 ", style="dim")
    for step in range(-8 if signed else 0, 9):
        line.append("  ", f"on {shade(4 * abs(step), 'n' if step < 0 else 'p', DARK)[0]}")
    return line.append(f" {top:.2g}", "dim")


def sources_table(influence: Influence, places: Sequence[int]) -> Table:
    """Some source tokens with position, id, score and a bar; a minus sign and bars of `-` mark what takes away."""
    top = _top(influence)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("position", justify="right")
    grid.add_column("token", overflow="fold")
    grid.add_column("id", justify="right")
    grid.add_column("score", justify="right")
    grid.add_column("")
    for place in places:
        token, score = influence.tokens[place], float(influence.scores[place])
        length = 0 if not top or math.isnan(score) else round(abs(score) / top * BAR)
        mark = " <- position explained" if place == influence.position else ""
        bar = Text(("-" if score < 0 else "#") * length + mark)
        grid.add_row(str(place), Text(named(token.text, token.id)), str(token.id), f"{score:.4g}", bar)
    return grid


def plain(influences: Sequence[Influence], lens: Lens | None = None) -> str:
    """Everything as text without colours. Raises `OptionError` where there is nothing to show."""
    if not influences and lens is None:
        raise OptionError("There is nothing to show: give at least one influence or a lens.")
    console = Console(file=io.StringIO(), width=200, no_color=True, force_terminal=False, highlight=False)
    for influence in influences:
        heat_line(influence, console)
        if said := standings(influence):
            console.print(Text(said), soft_wrap=True)
        if influence.completeness_gap is not None:
            console.print(Text(f"completeness gap {influence.completeness_gap:.1e}"))
        for warning in influence.warnings:
            console.print(Text(f"warning: {warning}"), soft_wrap=True)
        if influence.table:
            console.print(heads_table(influence.table))
        console.print()
    if lens is not None:
        console.print(lens_table(lens))
    text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
