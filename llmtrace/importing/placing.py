"""What each name in a dump means. **Placed**: the arrays that have a site; **tokens**: the one that holds the token ids; **left out**: the
others, with why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attrs import field, frozen

from llmtrace.errors import DumpError, UnknownSignalError, shown, suggest
from llmtrace.importing.axes import check
from llmtrace.importing.map import Row
from llmtrace.importing.record import LeftOut
from llmtrace.schema.names import aside, from_transformer_lens
from llmtrace.schema.steps import Step, any_layer
from llmtrace.spec import ModelSpec

TOKENS = ("tokens", "hook_tokens", "embed.hook_in")
"""Names of the token ids: ours, and TransformerLens's."""
OF_A_MODULE = "is what a module of transformers reads or makes, by TransformerLens's bridge, and no site"
MOST = 12
"""Differences that a message tells of, those of all layers as one."""


@frozen
class Placing:
    """The arrays of a dump, sorted."""

    rows: dict[str, Row] = field(factory=dict)
    """By name, those that have a site."""
    tokens: list[str] = field(factory=list)
    """The names of those that hold the token ids."""
    left_out: list[LeftOut] = field(factory=list)
    """The others."""


def place(
    dump: str,
    names: Collection[str],
    mapped: Mapping[str, Row],
    spec: ModelSpec,
    steps: Mapping[str, Step],
    leave_out: bool,
) -> Placing:
    """Sort the arrays of a dump by what a map says of them, else by their names.

    Raises `DumpError` for a row of the map that is of no array, or no site of the model; and for names that mean nothing or another value
    than ours, all of them at once, unless they may be left out.
    """
    _check_map(dump, names, mapped, steps)
    placing = Placing()
    foreign: list[LeftOut] = []
    for name in names:
        row = mapped.get(name) or _named(name, spec, steps)
        if isinstance(row, LeftOut):
            (placing.left_out if row.reason == OF_A_MODULE else foreign).append(row)
        elif row.site == "tokens":
            placing.tokens.append(name)
        else:
            placing.rows[name] = row
    if foreign and not leave_out:
        raise DumpError(
            f"{dump} has names that are no sites of this model: {told(f'{shown(each.name)} {each.reason}' for each in foreign)}. "
            "Say in a map what they are (names=, --map), or leave them out (leave_out=True, --leave-out)."
        )
    placing.left_out.extend(foreign)
    return placing


def told(differences: Iterable[str], most: int = MOST) -> str:
    """Differences in one line, those that several layers share as one.

    >>> told(["blocks.0.ln1 is odd", "blocks.1.ln1 is odd", "logits is missing"])
    'blocks.L.ln1 is odd (2 times); logits is missing'
    """
    kinds: dict[str, list[str]] = {}
    for each in differences:
        kinds.setdefault(any_layer(each), []).append(each)
    said = [each[0] if len(each) == 1 else f"{kind} ({len(each)} times)" for kind, each in kinds.items()]
    rest = len(said) - most
    return "; ".join(said[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _check_map(dump: str, names: Collection[str], mapped: Mapping[str, Row], steps: Mapping[str, Step]) -> None:
    for name, row in mapped.items():
        if row.site != "tokens" and row.site not in steps:
            raise DumpError(
                f"The map makes {shown(name)} {shown(row.site)}, which is no site of this model.{suggest(row.site, steps)}"
            )
        if name not in names:
            raise DumpError(f"The map speaks of {shown(name)}, which {dump} does not hold.{suggest(name, names)}")
        if row.site != "tokens":
            check(row.layout, steps[row.site])
        elif row != Row("tokens"):
            raise DumpError(f"The map gives {shown(name)} axes or a factor, and token ids have neither.")


def _named(name: str, spec: ModelSpec, steps: Mapping[str, Step]) -> Row | LeftOut:
    """What a name says by itself."""
    if name in TOKENS:
        return Row("tokens")
    if name in steps:
        return Row(name)
    if not name.rpartition(".")[2].startswith("hook_"):
        return LeftOut(name, f"is no site{_near(name, steps)}")
    if aside(name):
        return LeftOut(name, OF_A_MODULE)
    try:
        site = from_transformer_lens(name, spec)
    except UnknownSignalError as error:
        return LeftOut(name, f"cannot be taken ({str(error).removesuffix(' Name ours.').rstrip('.')})")
    return Row(site) if site in steps else LeftOut(name, f"is {site}, which this model does not have")


def _near(name: str, steps: Mapping[str, Step]) -> str:
    near = suggest(name, steps).strip().removeprefix("Did you mean ").rstrip("?")
    return f" (did you mean {near}?)" if near else ""
