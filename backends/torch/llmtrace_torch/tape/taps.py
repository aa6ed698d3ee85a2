"""Where values pass in a run with the model's own kernels. **Tap**: a module's input or output, or what an operator makes or reads that a module
calls itself, told by how often that module called it before.

Values were named on a tape of plain kernels. On a tape of the model's own they are found again by the module that makes them, and by their
numbers: the same up to how kernels round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import torch
from attrs import frozen

from llmtrace_torch.tape.memory import memory_of
from llmtrace_torch.tape.record import Call, Tape

CLOSE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far a value may be off, of its largest number, that another kernel made."""
COARSE = 0.05
"""The same in half precision."""
HIDING = 1e4
"""Numbers that are larger may hide keys, by the least number of a type or less."""
VARYING = frozenset(
    {"view", "_unsafe_view", "reshape", "clone", "expand", "alias", "detach", "_to_copy", "contiguous", "t"}
)
"""Operators that PyTorch calls, or does not, by how a tensor happens to lie in memory: a batch has others than one prompt."""


@frozen
class Tap:
    """A place where a value passes."""

    module: str
    turn: int
    """Of which call of the module, counted from 0."""
    port: Literal["in", "out", "made", "read"]
    """Among what it is given, what it returns, or what an operator that it calls makes or reads."""
    place: int
    """Which tensor of its input or output; which of its calls of the operator."""
    operator: str = ""
    """ATen's name, of what is made or read."""
    result: int = 0
    """Which result of the operator, or which of the tensors that it reads."""


@frozen(eq=False)
class Passing:
    """A value on the tape of the model's own kernels."""

    value: str
    """What it is called there."""
    tap: Tap
    """Where it is cheapest to see."""
    axes: tuple[int, ...]
    """Those that grow with the prompt, of what passes there."""
    editable: Tap | None
    """Where every reader sees a change; None where there is no such place."""
    edited_axes: tuple[int, ...] = ()


def passing(wanted: Collection[str], plain: Tape, own: Tape, tokens: int) -> dict[str, Passing]:
    """Where the wanted values of one tape pass on the other; those that nothing there is like are left out. `tokens` is the prompt's length,
    and no other axis is as long.
    """
    makers = {name: call for call in plain.calls for name in call.makes if name}
    here: dict[tuple[str, int], list[Call]] = {}
    for call in own.calls:
        here.setdefault((call.module, call.turn), []).append(call)
    seen = _Seen(own)
    found: dict[str, Passing] = {}
    for name in wanted:
        maker = makers.get(name)
        if maker is None or name not in plain.values:
            continue
        best = _alike(plain.values[name], maker, here.get((maker.module, maker.turn), []), own)
        if best is not None and (places := list(seen.places(best[0].makes[best[1]]))):
            places = [each for each in places if _growing(own.values[each[1]], tokens)] or places
            tap, shown = places[0]
            edits = [(each, value) for each, value in places if seen.by_all(each, value)]
            edit, edited = edits[0] if edits else (None, shown)
            axes, edited_axes = (_growing(own.values[each], tokens) for each in (shown, edited))
            found[name] = Passing(shown, tap, axes, edit, edited_axes)
    return found


class _Seen:
    """Where the values of a tape can be seen, and who reads them. **Twins**: values that are the same numbers in the same memory and order."""

    def __init__(self, tape: Tape) -> None:
        self._twins: dict[object, list[str]] = {}
        for name, value in tape.values.items():
            self._twins.setdefault(_numbers(name, value), []).append(name)
        self._values = tape.values
        self._taps: dict[str, list[Tap]] = {}
        for ran in tape.modules:
            for place, name in ran.gives.items():
                self._taps.setdefault(name, []).append(Tap(ran.module, ran.turn, "out", place))
        for ran in tape.modules:
            for place, name in ran.takes.items():
                self._taps.setdefault(name, []).append(Tap(ran.module, ran.turn, "in", place))
        self._made: dict[str, Tap] = {}
        self._read: dict[str, dict[Tap, Call]] = {}
        self._readers: dict[str, list[Call]] = {}
        counts: dict[tuple[str, int, str], int] = {}
        for call in tape.calls:
            for name in call.reads:
                self._readers.setdefault(name, []).append(call)
            if call.place < 0:
                continue
            at = (call.module, call.turn, call.name)
            counts[at] = counts.get(at, -1) + 1
            for which, name in enumerate(call.reads):
                tap = Tap(call.module, call.turn, "read", counts[at], call.name, which)
                self._read.setdefault(name, {})[tap] = call
            for result, name in enumerate(call.makes):
                self._made[name] = Tap(call.module, call.turn, "made", counts[at], call.name, result)

    def places(self, name: str) -> Iterator[tuple[Tap, str]]:
        """The taps of a value or of a twin, with the one that passes there: those of modules, then those of operators that every run calls;
        where it is read last, since what is written into a part of it makes it without an operator.
        """
        twins = [name, *(each for each in self._twins.get(_numbers(name, self._values[name]), ()) if each != name)]
        yield from ((tap, each) for each in twins for tap in self._taps.get(each, ()))
        made = [(self._made[each], each) for each in twins if each in self._made]
        yield from sorted(made, key=lambda each: each[0].operator in VARYING)
        read = [(tap, each) for each in twins for tap in self._read.get(each, ())]
        yield from sorted(read, key=lambda each: each[0].operator in VARYING)

    def by_all(self, tap: Tap, name: str) -> bool:
        """Whether all that reads a value or a twin of it reads what has passed a tap."""
        twins = set(self._twins.get(_numbers(name, self._values[name]), ())) | {name}
        readers = [call for each in twins for call in self._readers.get(each, ()) if not twins.intersection(call.makes)]
        inside = [within(call.module, tap.module) for call in readers]
        if tap.port == "in":
            return all(inside)
        if tap.port == "read":
            return all(call is self._read[name][tap] for call in readers)
        return not any(inside) if tap.port == "out" else tap.operator not in VARYING


def within(module: str, outer: str) -> bool:
    """Whether a module is another, or lies in it; the model itself has no name."""
    return module == outer or not outer or module.startswith(outer + ".")


def _growing(value: torch.Tensor, tokens: int) -> tuple[int, ...]:
    return tuple(at for at, size in enumerate(value.shape) if size == tokens)


def _numbers(name: str, value: torch.Tensor) -> object:
    """The same for twins."""
    if not value.is_contiguous():
        return name
    return memory_of(value), value.storage_offset(), value.numel(), value.dtype


def _alike(value: torch.Tensor, maker: Call, calls: list[Call], own: Tape) -> tuple[Call, int] | None:
    """The call whose result is the value: of several that are close the nearest in kind, then in place. A value in which no number is finite is
    told by kind and place alone.
    """
    size = _size(value)
    blank = value.is_floating_point() and not bool(value.isfinite().any())
    limit = CLOSE.get(value.dtype, COARSE) * size
    found: list[tuple[tuple[bool, int], tuple[Call, int]]] = []
    for call in calls:
        for result, name in enumerate(call.makes):
            other = own.values.get(name)
            if other is None or other.shape != value.shape or other.dtype != value.dtype:
                continue
            if blank and (call.name, call.place) != (maker.name, maker.place):
                continue
            if _off(value, other) <= limit:
                found.append(((call.name != maker.name, abs(call.place - maker.place)), (call, result)))
    return min(found, key=lambda each: each[0])[1] if found else None


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two values are the same but for how kernels round."""
    return one.shape == other.shape and _off(one, other) <= CLOSE.get(one.dtype, COARSE) * _size(one)


def _size(value: torch.Tensor) -> float:
    """The largest number of a value that hides no key."""
    return float(_told(value).abs().max()) if value.is_floating_point() and value.numel() else 0.0


def _told(value: torch.Tensor) -> torch.Tensor:
    """A value in double precision, with nought for what is not finite or hides a key."""
    wide = value.double().nan_to_num(0.0, 0.0, 0.0)
    hiding = wide.abs() > HIDING
    return wide if bool(hiding.all()) else wide.masked_fill(hiding, 0.0)


def _off(one: torch.Tensor, other: torch.Tensor) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else torch.inf
    both = one.isfinite() & other.isfinite()  # kernels spread what is not finite in other ways
    return float(((_told(one) - _told(other)) * both).abs().max()) if one.numel() else 0.0
