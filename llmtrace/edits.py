"""Changes of signals in flight, as data. **Edit**: what to do where, in the words of a selection; **change**: the same for one site and
one prompt, ready to be applied. What is not cut stays as the model computed it; all that is downstream reads what was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from attrs import field, frozen

from llmtrace.errors import OptionError
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.selection import CHANNELS, Cut, Indices, Pick, Selection, cut

Op = Literal["zero", "replace", "add", "scale"]
"""What is done to each number `x`: `0`, `value`, `x + value`, `x * value`."""
Value: TypeAlias = float | Sequence[Any] | Array | None
CUTS = {"heads": ("head", "kv_head"), "channels": CHANNELS, "tokens": ("token", "query")}
"""What an edit may be restricted to, and the axes that this means."""


def _value(value: Value) -> Array | None:
    """A read-only copy. Raises `OptionError` for what is no number, and for NaN."""
    if value is None:
        return None
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"An edit's value is a number or an array of numbers, not {value!r}.") from None
    if np.isnan(array).any():
        raise OptionError("An edit's value holds NaN, which would spread to everything after it.")
    array.flags.writeable = False
    return array


@frozen(eq=False, repr=False)
class Edit:
    """A change of the signals that a pattern names."""

    pick: Pick
    """Which sites, and which of their heads, channels and tokens."""
    op: Op
    """What is done to them."""
    value: Array | None = field(default=None, converter=_value)
    """The operand, float64; of the shape of what is changed, or one that broadcasts to it. None for `zero`."""

    def __str__(self) -> str:
        """`zero(blocks.3.attn.z_post, heads=1)`"""
        cuts = [(name, getattr(self.pick, name)) for name in CUTS]
        words = [f"{name}={','.join(map(str, wanted))}" for name, wanted in cuts if wanted is not None]
        value = [] if self.value is None else [f"{self.value:g}" if not self.value.ndim else _shape(self.value.shape)]
        return f"{self.op}({', '.join([self.pick.pattern, *value, *words])})"

    def __repr__(self) -> str:
        """`<Edit zero(blocks.3.attn.z_post, heads=1)>`: an operand has too many numbers to be shown."""
        return f"<Edit {self}>"


@frozen(eq=False)
class Change:
    """One edit of one site, for one prompt."""

    cut: Cut
    """What of the signal changes."""
    op: Op
    """How."""
    value: Array
    """The operand, float64, in the shape of what changes; of `zero`, zeros."""
    site: str = ""
    """What it changes, for messages."""
    edit: str = ""
    """Whose change it is, for messages."""

    def indices(self, shape: Sequence[int]) -> tuple[Array, ...]:
        """What of a whole signal of a shape changes, to index it by."""
        parts = (range(n) if part is None else part for n, part in zip(shape, self.cut.indices, strict=True))
        return np.ix_(*parts)

    def apply(self, array: Array) -> None:
        """Change a whole signal in place, axes as the schema's; what it does is rounded to the array's type once.

        Raises `OptionError` where a finite number by a finite operand gives one that is too large for the type; the array is then as
        it was.
        """
        where = self.indices(array.shape)
        before = array[where].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            wide = (
                before + self.value if self.op == "add" else before * self.value if self.op == "scale" else self.value
            )
            after = wide.astype(array.dtype)
        sound = np.isfinite(self.value) & (np.isfinite(before) | (self.op in ("zero", "replace")))
        if (sound & ~np.isfinite(after)).any():
            raise OptionError(
                f"{self.edit or self.op}: it makes {self.site or 'the signal'} larger than {array.dtype.name} can hold. Use a smaller "
                "value, or open the model with a wider type."
            )
        array[where] = after


Indexes: TypeAlias = Iterable[int] | None


def ablate(site: str, *, heads: Indexes = None, channels: Indexes = None, tokens: Indexes = None) -> Edit:
    """Set a signal to zero: the knock-out of a head (`ablate("blocks.3.attn.z_post", heads=[1])`), a layer, a position.

    >>> str(ablate("blocks.3.attn.z_post", heads=[1]))
    'zero(blocks.3.attn.z_post, heads=1)'
    """
    return Edit(Pick(site, heads, channels, tokens), "zero")


def replace(
    site: str, value: Value, *, heads: Indexes = None, channels: Indexes = None, tokens: Indexes = None
) -> Edit:
    """Put other values in a signal's place: activation patching, where they come from another run.

    `value` has the shape of what is changed, or broadcasts to it. Raises `OptionError` for NaN and for what is no number.
    """
    return Edit(Pick(site, heads, channels, tokens), "replace", _given("replace", value))


def add(site: str, value: Value, *, heads: Indexes = None, channels: Indexes = None, tokens: Indexes = None) -> Edit:
    """Add to a signal: a steering vector `[d_model]` at `resid_post`. `value` as in `replace`."""
    return Edit(Pick(site, heads, channels, tokens), "add", _given("add", value))


def scale(site: str, factor: Value, *, heads: Indexes = None, channels: Indexes = None, tokens: Indexes = None) -> Edit:
    """Multiply a signal. `factor` as the value in `replace`."""
    return Edit(Pick(site, heads, channels, tokens), "scale", _given("scale", factor))


def _given(op: Op, value: Value) -> Value:
    if value is None:
        raise OptionError(f"{op} needs a value.")
    return value


def changes(edits: Sequence[Edit], steps: Mapping[str, Step], tokens: int) -> dict[str, tuple[Change, ...]]:
    """What is changed at each site, for a prompt of `tokens` tokens, in the order of the edits.

    Raises `UnknownSignalError` for a pattern that names no site; `OptionError` for heads, channels or tokens that the site has not,
    for part of a group of heads that share keys and values, and for a value of another shape; `PromptError` for a position that is
    out of range.
    """
    found: dict[str, tuple[Change, ...]] = {}
    for edit in edits:
        if not isinstance(edit, Edit):
            raise OptionError(f"edits= takes a list of edits such as llmtrace.ablate(…), not {edit!r:.80}.")
        for site in Selection((edit.pick,)).resolve(steps):
            found[site] = (*found.get(site, ()), _change(edit, steps[site], tokens))
    return {site: found[site] for site in steps if site in found}


def _change(edit: Edit, step: Step, tokens: int) -> Change:
    for name, axes in CUTS.items():
        there = step.axes[-1:] if name == "channels" else step.axes
        if getattr(edit.pick, name) is not None and not set(axes) & set(there):
            raise OptionError(f"{edit}: {step.site} has no {name}; its axes are {', '.join(step.axes)}.")
    part = cut(step, edit.pick, tokens)
    if edit.pick.heads is not None and "kv_head" in step.axes:
        _whole_groups(edit, step, part.indices[step.axes.index("kv_head")])
    shape = part.shape(step.shape(tokens))
    value = np.zeros(()) if edit.value is None else edit.value
    try:
        return Change(part, edit.op, np.broadcast_to(value, shape), step.site, str(edit))
    except ValueError:
        raise OptionError(
            f"{edit}: the value has shape {_shape(value.shape)}, and what it changes {_shape(shape)}."
        ) from None


def _whole_groups(edit: Edit, step: Step, chosen: Indices | None) -> None:
    """Query heads that share keys and values can only be changed together."""
    heads, kv_heads = step.sizes["head"], step.sizes["kv_head"]
    group = heads // kv_heads
    named = {head % heads for head in edit.pick.heads or ()}
    touched = {
        head for kv in (range(kv_heads) if chosen is None else chosen) for head in range(kv * group, (kv + 1) * group)
    }
    if left := sorted(touched - named):
        raise OptionError(
            f"{edit}: head {left[0]} reads the same {step.equation.name} as a head that is named, so it would change too: name all "
            f"{group} heads of the group."
        )


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{' '.join(map(str, shape))}]"
