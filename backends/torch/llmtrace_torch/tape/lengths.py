"""What follows from the prompt's length: two tapes of one model, on prompts of unlike lengths, laid side by side. **Linear**: a number that is
`slope · tokens + start`; every number that differs between the two is taken for one.

A module that does not call the same operators for both, as one that goes from token to token does, is one call of its own: what it computes is
not looked into. So is one that picks rows by what they hold, as a loop over those experts that were chosen does: it would call others for
another prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import torch
from attrs import evolve, frozen
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from llmtrace.dataflow.segments import WHOLE
from llmtrace.errors import UnsupportedModelError
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.nested import changed
from llmtrace_torch.tape.record import Call, ModuleCall, Ref, Tape
from llmtrace_torch.tape.remembering import positions_of

Item: TypeAlias = "Call | Ran"
PICKING = frozenset({"nonzero"})
"""Operators that make as many rows as it takes."""


@frozen
class Linear:
    """A whole number that follows from the prompt's length."""

    slope: Fraction
    start: Fraction

    def at(self, tokens: int) -> int:
        """What it is for so many tokens. Raises `ValueError` where that is no whole number."""
        found = self.slope * tokens + self.start
        if found.denominator != 1:
            raise ValueError(f"{found} is no whole number")
        return int(found)


@frozen(eq=False)
class Ran:
    """A module that ran, and what it called: operators and modules, in order."""

    module: ModuleCall
    items: Sequence[Item]


def aligned(one: Tape, other: Tape, modules: Mapping[str, torch.nn.Module]) -> tuple[Call, ...]:
    """The calls of a tape, with `Linear` where a number follows from the prompt's length; `modules` are the model's, by name.

    Raises `UnsupportedModelError` where the two are not the same calls in the same order, outside all modules.
    """
    try:
        return tuple(_Aligner(one, other, modules).all(_nested(one), _nested(other)))
    except _Unlike as error:
        raise UnsupportedModelError(
            f"The model computes other things for prompts of other lengths: {error}."
        ) from error


def follows(call: Call) -> bool:
    """Whether something in a call follows from the prompt's length."""
    return any(isinstance(each, Linear) for each in tree_leaves((call.args, dict(call.kwargs))))


class _Unlike(Exception):  # noqa: N818  (no error of the user: a module becomes one call, or the model is refused)
    """Where two tapes part."""


def _nested(tape: Tape) -> list[Item]:
    """The calls of a tape, those of a module inside it."""
    begins: dict[int, list[ModuleCall]] = {}
    for ran in reversed(tape.modules):  # they stand in the order in which they returned: outer ones first now
        begins.setdefault(ran.first, []).append(ran)
    return _items(tape, begins, 0, len(tape.calls))


def _items(tape: Tape, begins: dict[int, list[ModuleCall]], at: int, end: int) -> list[Item]:
    found: list[Item] = []
    while at < end:
        here = begins.get(at)
        if here and here[0].end <= end:
            ran = here.pop(0)
            found.append(Ran(ran, _items(tape, begins, at, ran.end)))
            at = ran.end
        else:
            found.append(tape.calls[at])
            at += 1
    return found


class _Aligner:
    """Lays two tapes side by side."""

    def __init__(self, one: Tape, other: Tape, modules: Mapping[str, torch.nn.Module]) -> None:
        self._tokens, self._apart = one.tokens, other.tokens - one.tokens
        self._modules = modules
        self._leaves = one.leaves
        self._values_of = one.values

    def all(self, ours: Sequence[Item], theirs: Sequence[Item]) -> Iterator[Call]:
        """The calls of one, where the other's are the same."""
        if len(ours) != len(theirs):
            raise _Unlike(f"it calls {len(ours)} operators and modules, and {len(theirs)} for a longer prompt")
        for here, there in zip(ours, theirs, strict=True):
            if isinstance(here, Ran) and isinstance(there, Ran):
                yield from self._module(here, there)
            elif isinstance(here, Call) and isinstance(there, Call):
                yield self._call(here, there)
            else:
                raise _Unlike(f"{_name(here)} is {_name(there)} for a longer prompt")

    def _module(self, ours: Ran, theirs: Ran) -> list[Call]:
        if ours.module.module != theirs.module.module:
            raise _Unlike(f"{_name(ours)} is {_name(theirs)} for a longer prompt")
        try:
            if self._picks(ours):
                return [self._whole(ours, theirs.module)]
            module = self._modules[ours.module.module]
            if (found := positions_of(module, ours.module.given, self._values_of)) is not None:
                return [_remembered(module, ours.module, *found)]
            return list(self.all(ours.items, theirs.items))
        except _Unlike:
            if not ours.module.module:
                raise
            return [self._whole(ours, theirs.module)]

    def _picks(self, ran: Ran) -> bool:
        """Whether a module that has parameters, and is a part of a block, picks rows."""
        if not any(isinstance(each, Call) and each.name in PICKING for each in ran.items):
            return False
        above = ran.module.module.split(".")[:-1]
        lists = [
            at for at in range(len(above)) if isinstance(self._modules.get(".".join(above[:at])), torch.nn.ModuleList)
        ]
        return bool(lists) and any(True for _ in self._modules[ran.module.module].parameters())

    def _call(self, ours: Call, theirs: Call) -> Call:
        if ours.operator is not theirs.operator:
            raise _Unlike(f"{_name(ours)} is {_name(theirs)} for a longer prompt")
        args, kwargs = self._values(_name(ours), (ours.args, dict(ours.kwargs)), (theirs.args, dict(theirs.kwargs)))
        return evolve(ours, args=args, kwargs=kwargs)

    def _whole(self, ran: Ran, theirs: ModuleCall) -> Call:
        """A module as one call."""
        ours = ran.module
        args, kwargs = self._values(ours.module, ours.given, theirs.given)
        module, places = self._modules[ours.module], tuple(ours.gives)
        if places != tuple(theirs.gives):
            raise _Unlike(f"{ours.module} returns other things for a longer prompt")

        own = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)

        def operator(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            args, kwargs = changed(lambda x: _cast(x, own), (args, kwargs))
            made = tree_leaves(module(*args, **kwargs))
            return tuple(_cast(made[at], torch.promote_types(own, torch.float32)) for at in places)

        reads = tuple(dict.fromkeys(each.name for each in tree_leaves((args, kwargs)) if isinstance(each, Ref)))
        holds = tuple(dict.fromkeys(name for call in _calls(ran) for name in call.reads if name in self._leaves))
        return Call(
            operator, WHOLE, args, kwargs, reads, tuple(ours.gives.values()), ours.module, ours.turn, -1, holds=holds
        )

    def _values(self, where: str, ours: Any, theirs: Any) -> Any:
        mine, shape = tree_flatten(ours)
        others, _ = tree_flatten(theirs)
        if len(mine) != len(others):
            raise _Unlike(f"{where} is given {len(mine)} things, and {len(others)} for a longer prompt")
        return tree_unflatten([self._number(where, x, y) for x, y in zip(mine, others, strict=True)], shape)

    def _number(self, where: str, x: Any, y: Any) -> Any:
        if type(x) is type(y) and (isinstance(x, Ref) or _same(x, y)):
            return x
        if type(x) is int and type(y) is int:
            slope = Fraction(y - x, self._apart)
            return Linear(slope, x - slope * self._tokens)
        if type(x) is type(y) and not isinstance(x, float | str | bool | torch.dtype | torch.device):
            return x  # an object that is made for each run: a cache, a config
        raise _Unlike(f"{where} reads {x!r}, and {y!r} for a longer prompt")


def _remembered(module: torch.nn.Module, ran: ModuleCall, given: Any, positions: str) -> Call:
    """A rotary module that remembers as one call, which leaves it as it was."""
    args, kwargs = given
    places = tuple(ran.gives)

    def operator(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        with forgetful([module]):
            made = tree_leaves(module(*args, **kwargs))
        return tuple(made[at] for at in places)

    return Call(operator, WHOLE, args, kwargs, (positions,), tuple(ran.gives.values()), ran.module, ran.turn, -1)


def _calls(ran: Ran) -> Iterator[Call]:
    """All that a module and those in it call."""
    for item in ran.items:
        if isinstance(item, Ran):
            yield from _calls(item)
        else:
            yield item


def _cast(x: Any, kind: torch.dtype) -> Any:
    return x.to(kind) if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _same(x: Any, y: Any) -> bool:
    return x is y or bool(x == y or (x != x and y != y))  # noqa: PLR0124  NaN


def _name(item: Item) -> str:
    if isinstance(item, Ran):
        return item.module.module
    return f"{item.name} in {item.module or 'the model'}"
