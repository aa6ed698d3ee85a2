"""What follows from the prompt's length: two tapes of one model, on prompts of unlike lengths, laid side by side. **Linear**: a number that is
`slope · tokens + start`; every number that differs between the two is taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from attrs import evolve, frozen
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from llmtrace.errors import UnsupportedModelError
from llmtrace_torch.tape.record import Call, Ref, Tape


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


def aligned(one: Tape, other: Tape) -> tuple[Call, ...]:
    """The calls of a tape, with `Linear` where a number follows from the prompt's length.

    Raises `UnsupportedModelError` where the two are not the same calls in the same order.
    """
    return tuple(_aligned(one, other))


def follows(call: Call) -> bool:
    """Whether something in a call follows from the prompt's length."""
    return any(isinstance(each, Linear) for each in tree_leaves((call.args, call.kwargs)))


def _aligned(one: Tape, other: Tape) -> Iterator[Call]:
    if len(one.calls) != len(other.calls):
        raise _unlike(
            f"it calls {len(one.calls)} operators for {one.tokens} tokens and {len(other.calls)} for {other.tokens}"
        )
    apart = other.tokens - one.tokens
    for here, there in zip(one.calls, other.calls, strict=True):
        ours, shape = tree_flatten((here.args, dict(here.kwargs)))
        theirs, _ = tree_flatten((there.args, dict(there.kwargs)))
        if here.operator is not there.operator or here.module != there.module or len(ours) != len(theirs):
            raise _unlike(
                f"{here.name} in {here.module or 'the model'} is {there.name} in {there.module or 'the model'} for a longer prompt"
            )
        numbers = [_number(here, x, y, one.tokens, apart) for x, y in zip(ours, theirs, strict=True)]
        args, kwargs = tree_unflatten(numbers, shape)
        yield evolve(here, args=args, kwargs=kwargs)


def _number(call: Call, x: Any, y: Any, tokens: int, apart: int) -> Any:
    if isinstance(x, Ref) or x is y or (type(x) is type(y) and (x == y or (x != x and y != y))):  # noqa: PLR0124  NaN
        return x
    if type(x) is int and type(y) is int:
        slope = Fraction(y - x, apart)
        return Linear(slope, x - slope * tokens)
    raise _unlike(f"{call.name} in {call.module or 'the model'} reads {x!r}, and {y!r} for a longer prompt")


def _unlike(why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"The model computes other things for prompts of other lengths: {why}.")
