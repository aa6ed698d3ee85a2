"""Parameter types: what a word on the command line is read as, and what the shell may complete it to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

UNITS = {"": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30, "t": 40, "tib": 40}
"""Unit to its power of two."""
DECIMAL = {"kb": 3, "mb": 6, "gb": 9, "tb": 12}
"""Unit to its power of ten."""
NO_LIMIT = -1


class Indices(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.5
    """Whole numbers separated by commas; `4..8` is a range with both ends, `-1` counts from the end."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`0,3..5` as (0, 3, 4, 5)."""
        if isinstance(value, tuple):
            return value
        found: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(-?\d{1,12})(?:\.\.(\d{1,12}))?\s*", part)
            if match is None:
                self.fail(f"{part.strip()!r} is not a whole number: give them as 5,17,3", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last - first > 1_000_000:
                self.fail(f"the range {part.strip()!r} is too long", param, ctx)
            found += range(first, last + 1)
        return tuple(found)


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Bytes: `500MB`, `2GiB`, `4G` (binary), or `none` for no limit (-1)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`2GiB` as 2147483648; -1 where there is no limit."""
        if isinstance(value, int):
            return value
        if value.lower() == "none":
            return NO_LIMIT
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)\s*", value.lower())
        if match is None or match[2] not in UNITS | DECIMAL:
            self.fail(f"{value!r} is not a size: give it as 500MB, 2GiB or none", param, ctx)
        unit = 10 ** DECIMAL[match[2]] if match[2] in DECIMAL else 2 ** UNITS[match[2]]
        return int(float(match[1]) * unit)


class Share(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number from 0 to 1: `0.95`."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; NaN is none."""
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if not 0 <= found <= 1:
            self.fail(f"{value!r} is not a share: give a number from 0 to 1, as 0.95", param, ctx)
        return found


def pairs(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`name=value` words as a dictionary; the last one of a name counts."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{pair!r} is not of the form name=value.", ctx, param)
        found[name.strip()] = value
    return found


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of backends that begin as what was typed."""
    from click.shell_completion import CompletionItem

    from llmtrace.plugins import plugins

    return [CompletionItem(name) for name in sorted(plugins().backends) if name.startswith(incomplete)]


def complete_method(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of influence methods that begin as what was typed."""
    from click.shell_completion import CompletionItem

    from llmtrace.plugins import plugins

    rows = plugins().methods.values()
    return [CompletionItem(row.name, help=row.title) for row in rows if row.name.startswith(incomplete)]


def complete_motif(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of motifs that begin as what was typed."""
    from click.shell_completion import CompletionItem

    from llmtrace.plugins import plugins

    rows = plugins().motifs.values()
    return [CompletionItem(row.name, help=row.title) for row in rows if row.name.startswith(incomplete)]


def complete_viewer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of viewers that begin as what was typed."""
    from click.shell_completion import CompletionItem

    from llmtrace.plugins import plugins

    return [CompletionItem(name) for name in sorted(plugins().viewers) if name.startswith(incomplete)]
