"""Traces and signals in a notebook. **Fragment**: markup without script; texts from files are escaped, and long lists shortened."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llmtrace.trace import Signal, Trace
from llmtrace.view.pack import safe
from llmtrace.view.signals import Group, group, groups

HEAD = ("site", "axes", "type", "where from", "computed in", "bytes")
SHOWN = 40
"""Rows of a table; of more, the first and the last are shown."""
CHARACTERS = 160
"""Of one cell; a longer one is cut, and whole in its title."""


def signal_fragment(signal: Signal) -> str:
    """Everything about one signal but its numbers; static, safe in any notebook."""
    kept = f"in part: {signal.part}" if signal.part else "whole"
    return _fragment(f"Signal, {kept}", [_row(group([signal]))])


def trace_fragment(trace: Trace) -> str:
    """Which model and what was recorded, layers that are alike in one row; static, safe in any notebook."""
    rows = [_row(each) for each in groups(trace)]
    if len(rows) > SHOWN:
        left = len(rows) - SHOWN + 1
        rows = [*rows[: SHOWN // 2], (f"… {left} more rows",), *rows[left + SHOWN // 2 :]]
    return _fragment(repr(trace).strip("<>"), rows)


def _row(each: Group) -> tuple[str, ...]:
    return each.site, each.axes, each.dtype, each.provenance, each.precision, f"{each.bytes:,}"


def _fragment(caption: str, rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in HEAD)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    title = f'<div style="font-size:85%;opacity:.8">{escape(safe(caption))}</div>'
    return f'<div dir="ltr" style="font-family:system-ui,sans-serif">{title}<table><tr>{head}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    text = safe(text)
    if len(text) <= CHARACTERS:
        return f'<td style="text-align:left">{escape(text)}</td>'
    return f'<td style="text-align:left" title="{escape(text)}">{escape(text[:CHARACTERS])}…</td>'
