"""What a dump's names mean, where they say it neither our way nor TransformerLens's. **Row**: one array's site, axes and factor.

    "attn{L}" = "blocks.{L}.attn.pattern"
    "mix{L}"  = { site = "blocks.{L}.attn.z", axes = "batch token (head d_head)", factor = 0.5 }
    "ids"     = "tokens"

`{L}` stands for the number of every block. What the array holds is multiplied by the factor.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from attrs import frozen

from llmtrace.errors import DumpError, shown, suggest
from llmtrace.importing.axes import Layout, parse

Names: TypeAlias = Mapping[str, "str | Mapping[str, Any]"]
"""A map as a mapping: name to site, or to a table of `site`, `axes` and `factor`."""
FIELDS = ("site", "axes", "factor")
LAYER = "{L}"


@frozen
class Row:
    """What one array is."""

    site: str
    """Ours, or `tokens`."""
    layout: Layout | None = None
    """How the array is laid out; None: as the site is, or behind a batch."""
    factor: float = 1.0
    """What its values are multiplied by."""


@frozen
class Written:
    """A map as it was written, sound by itself; which blocks there are is not known yet."""

    what: str
    """What messages call it."""
    rows: tuple[tuple[str, Row], ...] = ()
    """With `{L}` in them."""

    def of(self, blocks: int) -> dict[str, Row]:
        """The rows by the names of arrays, each `{L}` once a block. Raises `DumpError` for a name that is there twice then."""
        rows: dict[str, Row] = {}
        for name, row in self.rows:
            for each, one in _expanded(name, row, blocks):
                if each in rows:
                    raise DumpError(f"{self.what} says twice what {shown(each)} is.")
                rows[each] = one
        return rows


def read_map(names: Names | str | Path | None) -> Written:
    """A map, or the TOML file that holds it, before any model is open.

    Raises `DumpError` for a file that is no TOML and for a row that says something else than a row may.
    """
    if names is None:
        return Written("")
    what = "names=" if isinstance(names, Mapping) else str(names)
    table = names if isinstance(names, Mapping) else _toml(Path(names))
    return Written(what, tuple((str(name), _row(what, str(name), value)) for name, value in table.items()))


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DumpError(f"There is no file {path}.") from None
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{path} is no map in TOML: {error}.") from error


def _row(what: str, name: str, value: object) -> Row:
    row = _said(what, name, value)
    if (LAYER in name) != (LAYER in row.site):
        raise DumpError(f"{what}: {shown(name)} and its site {shown(row.site)} must both have {LAYER}, or neither.")
    return row


def _said(what: str, name: str, value: object) -> Row:
    if isinstance(value, str):
        return Row(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("site"), str):
        raise DumpError(f"{what}: {shown(name)} is neither a site nor a table that has one (site = ...).")
    if unknown := [key for key in value if key not in FIELDS]:
        raise DumpError(
            f"{what}: {shown(name)} has {shown(unknown[0])}; a row has {', '.join(FIELDS)}.{suggest(str(unknown[0]), FIELDS)}"
        )
    axes, factor = value.get("axes"), value.get("factor", 1.0)
    if not (axes is None or isinstance(axes, str)):
        raise DumpError(f"{what}: the axes of {shown(name)} are no text, such as 'token (head d_head)'.")
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not number or not 0 < abs(factor) <= sys.float_info.max:  # TOML's integers know no end
        raise DumpError(f"{what}: the factor of {shown(name)} is {shown(factor)} and no finite number but 0.")
    return Row(value["site"], None if axes is None else parse(axes), float(factor))


def _expanded(name: str, row: Row, blocks: int) -> Iterator[tuple[str, Row]]:
    for layer in range(blocks if LAYER in name else 1):
        number = str(layer)
        yield name.replace(LAYER, number), Row(row.site.replace(LAYER, number), row.layout, row.factor)
