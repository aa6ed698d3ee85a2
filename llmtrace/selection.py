"""What to record. **Pick**: a pattern of sites with heads, channels and tokens; **selection**: several picks; **cut**: what of one
signal is wanted, axis by axis.

Patterns: `*` is any text within one part of a name, `**` any parts, `{a,b}` alternatives, `{4..8}` a range of numbers with both ends,
`blocks.-1` the last block. A TransformerLens hook name is accepted where it means the same value; a pattern of hook names
(`blocks.*.attn.hook_*`) names the sites whose hooks it matches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, TypeAlias, TypeVar

from attrs import field, frozen

from llmtrace.errors import LimitError, OptionError, PromptError, UnknownSignalError, suggest
from llmtrace.schema.names import from_transformer_lens, hooks
from llmtrace.schema.steps import Step

T = TypeVar("T")
Indices: TypeAlias = tuple[int, ...]
CHANNELS = ("d_model", "d_head", "d_value", "d_mlp", "vocab", "expert")
PARTS = {"token": "tokens", "query": "tokens", "head": "heads", "kv_head": "key/value heads"}
"""What the indices of an axis count, for people; of other axes they count channels."""
WILD = frozenset("*{")
DEFAULT_MAX_BYTES = 2 * 1024**3


def _few(part: Indices) -> str:
    shown = " ".join(map(str, part[:6])) or "none"
    return shown if len(part) <= 6 else f"{shown} …, {len(part)} in all"


def _indices(value: Iterable[int] | None) -> Indices | None:
    try:
        return None if value is None else tuple(index(i) for i in value)
    except TypeError:
        raise OptionError(f"heads=, channels= and tokens= take lists of integers, not {value!r}.") from None


@frozen
class Pick:
    """One pattern of sites, and what of them; None is everything."""

    pattern: str
    """Of sites, in this module's grammar."""
    heads: Indices | None = field(default=None, converter=_indices)
    """Query heads; of key/value signals, the heads that these read."""
    channels: Indices | None = field(default=None, converter=_indices)
    """Of the last axis, where it counts features."""
    tokens: Indices | None = field(default=None, converter=_indices)
    """Of the token and query axes, never of keys; negative ones count from the end."""

    @property
    def wild(self) -> bool:
        """Whether the pattern may name several sites: such a pick takes what there is."""
        return not WILD.isdisjoint(self.pattern)


@frozen
class Cut:
    """What of one signal is wanted: indices for each axis, or None for all of it."""

    indices: tuple[Indices | None, ...]
    """One an axis."""

    @property
    def whole(self) -> bool:
        """Nothing is left out."""
        return all(part is None for part in self.indices)

    def words(self, axes: Sequence[str]) -> str:
        """What is left, for people; `axes` are the signal's. Empty for all of it.

        >>> Cut((None, (1,), (0, 1))).words(("token", "head", "d_head"))
        'heads 1, channels 0 1'
        """
        parts = [(axis, part) for axis, part in zip(axes, self.indices, strict=True) if part is not None]
        return ", ".join(f"{PARTS.get(axis, 'channels')} {_few(part)}" for axis, part in parts)

    def shape(self, full: Sequence[int]) -> tuple[int, ...]:
        """The shape that is left of a full shape."""
        return tuple(size if part is None else len(part) for size, part in zip(full, self.indices, strict=True))

    def apply(self, array: T) -> T:
        """Cut a NumPy array or anything that is indexed like one (a torch tensor); a run of indices stays a view."""
        cut: Any = array
        for axis, part in enumerate(self.indices):
            if part is not None:
                run = bool(part) and part == tuple(range(part[0], part[0] + len(part)))
                chosen = slice(part[0], part[0] + len(part)) if run else list(part)
                cut = cut[(slice(None),) * axis + (chosen,)]
        return cut  # type: ignore[no-any-return]


@frozen
class Selection:
    """Site patterns to record; where several name one site, the last one counts."""

    picks: tuple[Pick, ...]
    """In the order in which they were given."""

    def __or__(self, other: Selection) -> Selection:
        """Both."""
        return Selection(self.picks + other.picks)

    def resolve(self, steps: Mapping[str, Step]) -> dict[str, Pick]:
        """The sites of a model that the patterns name, in dataflow order.

        Raises `UnknownSignalError` for a pattern that names none, with near names.
        """
        chosen: dict[str, Pick] = {}
        for pick in self.picks:
            named = _matches(pick.pattern, steps)
            if not named:
                raise UnknownSignalError(
                    f"The selection {pick.pattern!r} matches no site of this model.{_near(pick.pattern, steps)}"
                )
            chosen |= dict.fromkeys(named, pick)
        return {site: chosen[site] for site in steps if site in chosen}


Capture: TypeAlias = str | Selection | Sequence[str | Selection] | None


def select(
    *patterns: str,
    heads: Iterable[int] | None = None,
    channels: Iterable[int] | None = None,
    tokens: Iterable[int] | None = None,
) -> Selection:
    """A selection of site patterns, cut to some heads, channels or tokens.

    >>> select("blocks.{4..8}.attn.pattern", heads=[1], tokens=[-1]).picks[0].tokens
    (-1,)
    """
    return Selection(tuple(Pick(pattern, heads, channels, tokens) for pattern in patterns))


def as_selection(capture: Capture) -> Selection:
    """Whatever `capture=` accepts, as a selection; None is every site but those recorded on request only."""
    if capture is None:
        return select("**")
    if isinstance(capture, Selection):
        return capture
    if isinstance(capture, str):
        return select(capture)
    if not isinstance(capture, Iterable):
        raise OptionError(f"capture= takes site patterns or selections, not {capture!r}.")
    return Selection(tuple(pick for item in capture for pick in as_selection(item).picks))


def cut(step: Step, pick: Pick, tokens: int) -> Cut:
    """What a pick leaves of one step's signal, for a prompt of `tokens` tokens. Raises `OptionError` for an index out of range."""
    if pick.tokens is None and pick.heads is None and pick.channels is None:
        return Cut((None,) * len(step.axes))
    sizes = dict(zip(step.axes, step.shape(tokens), strict=True))
    indices: list[Indices | None] = []
    for place, axis in enumerate(step.axes):
        wanted: Indices | None = None
        if axis in ("token", "query"):
            wanted = pick.tokens
        elif axis == "head":
            wanted = pick.heads
        elif axis == "kv_head" and pick.heads is not None:
            wanted = _kv_heads(step, pick.heads)
        elif axis in CHANNELS and place == len(step.axes) - 1:
            wanted = pick.channels
        chosen = None if wanted is None else _within(wanted, sizes[axis], axis, step.site)
        indices.append(None if chosen == tuple(range(sizes[axis])) else chosen)
    return Cut(tuple(indices))


def _kv_heads(step: Step, heads: Indices) -> Indices:
    """The key/value heads that some query heads read, each once."""
    queries = step.sizes["head"]
    group = queries // step.sizes["kv_head"]
    return tuple(dict.fromkeys(head // group for head in _within(heads, queries, "head", step.site)))


def _within(wanted: Indices, size: int, axis: str, site: str) -> Indices:
    """Indices counted from the start. Raises `PromptError` for a position, `OptionError` for a head or channel out of range."""
    for place in wanted:
        if not -size <= place < size:
            error = PromptError if axis in ("token", "query") else OptionError
            raise error(f"{axis} {place} is out of range at {site}, which has {size}.")
    return tuple(place % size for place in wanted)


def check_bytes(amount: int, limit: int | None) -> None:
    """Refuse a run that would record more bytes than the limit, before it starts. Raises `LimitError`."""
    if limit is not None and amount > limit:
        raise LimitError(
            f"This selection records {amount:,} bytes, over the limit of {limit:,}. Narrow it (fewer sites, heads=, tokens=), "
            f"or raise the limit (max_bytes=, --max-bytes)."
        )


def size(step: Step, cut: Cut, tokens: int, itemsize: int) -> int:
    """Bytes of one signal as cut."""
    return math.prod(cut.shape(step.shape(tokens))) * itemsize


def _matches(pattern: str, steps: Mapping[str, Step]) -> list[str]:
    theirs = "hook_" in pattern and not WILD.isdisjoint(re.sub(r"^blocks\.[^.]+\.", "", pattern))
    if "hook_" in pattern and not theirs:
        pattern = from_transformer_lens(pattern)
    if pattern in steps:
        return [pattern]
    layers = 1 + max((step.layer for step in steps.values() if step.layer is not None), default=-1)
    pattern = re.sub(r"^blocks\.-(\d+)\b", lambda m: f"blocks.{layers - int(m[1])}", pattern)
    compiled = re.compile(_regex(pattern))
    names = {site: hooks(site) if theirs else (site,) for site in steps}
    return [site for site, step in steps.items() if any(map(compiled.fullmatch, names[site])) and _asked(step, pattern)]


def _asked(step: Step, pattern: str) -> bool:
    """A site that is recorded on request only is asked for by a pattern that spells its own name: `{z,result}`, not `*`."""
    return not step.equation.on_request or step.equation.name in re.split(r"[.{},\s]", pattern)


def _regex(pattern: str) -> str:
    out = ""
    for piece in re.findall(r"\*\*|\*|\{[^{}]*\}|[^*{]+|[{]", pattern):
        if piece == "**":
            out += ".*"
        elif piece == "*":
            out += r"[^.]*"
        elif piece.startswith("{") and piece.endswith("}"):
            out += "(?:" + "|".join(_alternatives(piece[1:-1])) + ")"
        elif piece == "{":
            raise UnknownSignalError(f"The selection {pattern!r} has a brace that is not closed.")
        else:
            out += re.escape(piece)
    return out


def _alternatives(inside: str) -> list[str]:
    """Regular expressions of the alternatives; a number that no model has layers for is not worth a list."""
    found: list[str] = []
    for part in inside.split(","):
        ends = re.fullmatch(r"\s*(\d{1,5})\.\.(\d{1,5})\s*", part)
        found += [str(n) for n in range(int(ends[1]), int(ends[2]) + 1)] if ends else [re.escape(part.strip())]
    return found


def _near(pattern: str, steps: Mapping[str, Step]) -> str:
    plain = re.sub(r"blocks\.[^.]+", "blocks.0", pattern)
    return suggest(plain, steps) or " `llmtrace info MODEL` lists the sites."
