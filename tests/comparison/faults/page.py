"""The table as a page of the documentation, and what it states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from tests.comparison.faults.columns import COLUMNS
from tests.comparison.faults.fault import Fault
from tests.comparison.faults.outcome import Outcome
from tests.comparison.faults.rows import afterwards

PAGE = Path(__file__).parents[3] / "docs" / "compare-faults.md"
HEAD = """# Planted faults

What `llmtrace compare` finds of mistakes that were made on purpose. The page is written by
`python -m tests.comparison.faults --write docs/compare-faults.md`, and tests hold what it states. Each **fault** is made in a copy of a tiny
seeded model of three blocks: in its config, its tensors or its tokenizer, so that every runtime gets the same one; in PyTorch's modules after
the model was opened (*code*); or by a writer of graphs that takes the model for another (*converter*). The reference is the model without
the fault, in float32, on PyTorch.

A fault is **above** the precision of a column where its relative error at its site, in float32, is larger than what the column's rounding
explains there, and a tensor is changed by more than its storage type may change it. Of those, the first divergent site that is
named must be the one where the fault is: ✓. A fault below the precision must be passed over, and no other site be named: ·. ✗ is another site,
or none where there should be one; – is a fault that cannot be made there, as a runtime or a format has no place for it. A cause is **named**
where the words say what was done; the column *cause* counts the cells of its row.
"""
CLEAN = """## Right conversions

Models that nothing was done to, in {count} combinations of architecture, runtime and precision that open: {bases} architectures; {columns}.
Of these, **{alarms} diverge**.
"""


AFTERWARDS = """## Faults that no rule was made for

{count} of the faults, from *{first}* on, were written when the rules stood, in families that no rule had seen, and what had to be said of each
before it was run. As they were first run, the first site was right in all of the 180 cells in which one was named (of two faults, another
had been written down: the runtime hands out a site that is nearer), and the cause was named in 156 of them (87 %). What was not: a
tensor, a norm, queries and keys, or sines in half precision; a head that is lost; key heads in another order; a clipped sum; two tensors
of one site, of which the other was told; and in Q4_0 one lost row of a matrix was taken for one lost number. There are rules for these now, so
the table below is no test of them any more.
"""


@frozen
class Totals:
    """Of one column, or of all."""

    planted: int
    """Faults that can be made there."""
    above: int
    """Of these, above its precision."""
    found: int
    """Of those, with the right site first."""
    below: int
    """Below its precision."""
    passed: int
    """Of those, with no other site named."""
    named: int
    """Of the sites that were found, also below the precision, with their cause."""
    right: int
    """Sites that were found, also below the precision."""


def totals(outcomes: Iterable[Outcome]) -> Totals:
    """What holds of some cells."""
    planted = [each for each in outcomes if each.status != "not planted"]
    above = [each for each in planted if each.visible]
    below = [each for each in planted if not each.visible]
    right = [each for each in planted if each.status == "found"]
    return Totals(
        len(planted),
        len(above),
        sum(each.status == "found" for each in above),
        len(below),
        sum(each.status in ("below", "found") for each in below),
        sum(each.named for each in right),
        len(right),
    )


def page(
    faults: Sequence[Fault], outcomes: Mapping[tuple[str, str], Outcome], clean: Mapping[tuple[str, str], str]
) -> str:
    """The whole page. `clean` holds the verdict of each right conversion, by base and column."""
    lines = [HEAD, "## Totals", ""]
    lines += [
        "| candidate | faults | above its precision | first site right | below | passed over | cause named |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in COLUMNS:
        lines.append(_total(name, totals(each for (_, column), each in outcomes.items() if column == name)))
    lines += [_total("all", totals(outcomes.values())), ""]
    lines += [
        _clean(clean),
        AFTERWARDS.format(count=len(afterwards.ROWS), first=afterwards.ROWS[0].name),
        "## Faults",
        "",
    ]
    lines += [
        f"| fault | how | model | first site | {' | '.join(COLUMNS)} | cause |",
        "| --- " * (len(COLUMNS) + 5) + "|",
    ]
    lines += [_row(fault, outcomes) for fault in faults]
    lines += ["", "## What is not found, or not explained", "", *_misses(faults, outcomes), ""]
    return "\n".join(lines)


def _total(name: str, t: Totals) -> str:
    return (
        f"| {name} | {t.planted} | {t.above} | {t.found} ({_share(t.found, t.above)}) | {t.below} | {t.passed} | "
        f"{t.named} of {t.right} ({_share(t.named, t.right)}) |"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _clean(clean: Mapping[tuple[str, str], str]) -> str:
    alarms = sum(verdict == "diverges" for verdict in clean.values())
    columns = "; ".join(dict.fromkeys(column for _, column in clean))
    return CLEAN.format(
        count=len(clean), bases=len({base for base, _ in clean}), columns=columns, alarms=alarms or "none"
    )


def _row(fault: Fault, outcomes: Mapping[tuple[str, str], Outcome]) -> str:
    cells = [outcomes.get((fault.name, column)) for column in COLUMNS]
    right = [each for each in cells if each is not None and each.status == "found"]
    site = next((each.expected for each in cells if each is not None and each.expected), fault.sites[0])
    named = f"{sum(each.named for each in right)} of {len(right)}"
    return f"| {fault.name} | {fault.how} | {fault.base} | `{site}` | {' | '.join(map(mark, cells))} | {named} |"


def _misses(faults: Sequence[Fault], outcomes: Mapping[tuple[str, str], Outcome]) -> list[str]:
    lines = []
    for fault in faults:
        cells = [each for column in COLUMNS if (each := outcomes.get((fault.name, column))) is not None]
        for status, words in (("wrong", "another site first"), ("missed", "nothing is said")):
            if where := [each for each in cells if each.status == status]:
                seen = "".join(f" (`{each.first}`)" for each in where[:1] if each.first)
                lines.append(f"* {fault.name}, {words}{seen}: {', '.join(each.column for each in where)}")
        unnamed: dict[str, list[str]] = {}
        for each in cells:
            if each.status == "found" and not each.named:
                unnamed.setdefault(each.cause or "nothing", []).append(each.column)
        lines += [
            f"* {fault.name}, cause told as “{_escaped(cause)}”: {', '.join(columns)}"
            for cause, columns in unnamed.items()
        ]
    return lines


def _escaped(text: str) -> str:
    return text.replace("<", "‹").replace(">", "›").replace("|", "¦")


def stated(column: str) -> Totals:
    """What the page says of a column, or of `all`."""
    for cells in _cells(7):
        if cells[0] == column:
            numbers = [list(map(int, re.findall(r"\d+", re.sub(r"\(.*?\)", "", cell)))) for cell in cells[1:]]
            (planted,), (above,), (found,), (below,), (passed,), (named, right) = numbers
            return Totals(planted, above, found, below, passed, named, right)
    raise AssertionError(f"{PAGE} states nothing of {column!r}")


def stated_rows() -> dict[str, dict[str, str]]:
    """The mark of each fault in each column, and under `cause` how many of how many were named."""
    return {cells[0]: dict(zip([*COLUMNS, "cause"], cells[4:], strict=True)) for cells in _cells(len(COLUMNS) + 5)[1:]}


def stated_unnamed() -> set[tuple[str, str]]:
    """Faults and columns whose cause the page says is not named."""
    found = re.findall(r"^\* (.*), cause told as “.*”: (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {(fault, column) for fault, columns in found for column in columns.split(", ")}


def stated_clean() -> tuple[int, str]:
    """How many right conversions the page says it opened, and how many of them diverge."""
    text = PAGE.read_text("utf-8")
    count, alarms = re.search(r"in (\d+) combinations", text), re.search(r"\*\*(\w+) diverge\*\*", text)
    assert count is not None and alarms is not None
    return int(count[1]), alarms[1]


def _cells(wide: int) -> list[list[str]]:
    """The rows of tables of so many columns, without the lines below their heads."""
    lines = [
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|") and not line.startswith("| ---")
    ]
    return [cells for line in lines if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == wide]


def mark(outcome: Outcome | None) -> str:
    """A cell of the table."""
    if outcome is None or outcome.status == "not planted":
        return "–"
    return {"found": "✓", "below": "·"}.get(outcome.status, "✗")
