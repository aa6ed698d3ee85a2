"""Where a motif holds: which keys each query looks at, as an expression. **Row**: a query `q`; **point**: one position a row;
**places**: any number of positions a row. A row where an expression is undefined is not eligible.

    pattern[q, q - 1]                     the position before
    pattern[q, last(token[q]) + 1]        what stood after the latest earlier occurrence of the row's token
    pattern[q, all(token[q])]             every earlier occurrence
    pattern[q, q - 7:q + 1]               eight positions up to the row's own: a range excludes its end

`bos` is position 0, `self` is q; `first(t)`, `last(t)` and `all(t)` are the earlier positions that hold the token t. Written in
Python's syntax and read by Python's parser, of which nothing but names, integers, `+`, `-` and these calls is let through.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np
from attrs import field, frozen

from llmtrace.errors import CircuitError, shown
from llmtrace.schema.sites import Array

CALLS = ("first", "last", "all")
LONGEST = 200
"""Characters of an expression: Python's parser is let loose on nothing long."""
FARTHEST = 2**20
"""An integer of an expression is smaller."""
NOWHERE = -(2**40)
"""A position that there is not: undefined, and still so after a shift."""
GRAMMAR = "write pattern[q, KEYS] with KEYS of q, self, bos, integers, +, -, token[…], first(…), last(…), all(…), or a range a:b"


def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise CircuitError(f"The expression {shown(text)} is longer than {LONGEST} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CircuitError(f"The expression {shown(text)} cannot be read: {GRAMMAR}.") from None
    match tree:
        case ast.Subscript(ast.Name("pattern"), ast.Tuple([ast.Name("q"), keys])):
            return keys
    raise CircuitError(f"The expression {shown(text)} is no place in a pattern: {GRAMMAR}.")


@frozen(slots=False)
class Where:
    """The keys that a motif's head looks at in each row."""

    text: str
    """As it was written."""
    _keys: ast.expr = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_keys", _parsed(self.text))
        self.keys((0, 0, 0))  # whatever it may not say, it may not say of any tokens

    def keys(self, ids: Sequence[int]) -> Array:
        """As a mask [query key] for a prompt's token ids; all False in a row where the expression is undefined.

        >>> Where("pattern[q, last(token[q]) + 1]").keys([7, 8, 7])[2]
        array([False,  True, False])
        """
        row = _Rows(np.asarray(ids), self.text)
        match self._keys:
            case ast.Slice(ast.expr() as lower, ast.expr() as upper, None):
                places = row.between(row.point(lower), row.point(upper))
            case ast.Slice():
                raise CircuitError(f"The expression {shown(self.text)} has a range without both ends, or with a step.")
            case keys:
                places = row.places(keys)
        return places

    def __str__(self) -> str:
        """As it was written."""
        return self.text


class _Rows:
    """Evaluates over all rows of one prompt at once."""

    def __init__(self, tokens: Array, text: str) -> None:
        self._tokens, self._text = tokens, text
        self._q = np.arange(len(tokens))
        self._earlier = self._q[None, :] < self._q[:, None]

    def places(self, tree: ast.expr) -> Array:
        """[query key]"""
        match tree:
            case ast.Call(ast.Name("all"), [of], []):
                return self._holding(of)
            case ast.BinOp(left, ast.Add() | ast.Sub() as sign, by) if _many(left):
                return _shifted(self.places(left), self._whole(by) * (1 if isinstance(sign, ast.Add) else -1))
        point = self.point(tree)
        return np.asarray(point[:, None] == self._q[None, :])

    def point(self, tree: ast.expr) -> Array:
        """[query], which may lie outside the prompt; `NOWHERE` where it is undefined."""
        match tree:
            case ast.Name("q" | "self"):
                return self._q
            case ast.Name("bos"):
                return np.zeros_like(self._q)
            case ast.Constant():
                return np.full_like(self._q, self._whole(tree))
            case ast.BinOp(left, ast.Add() | ast.Sub() as sign, by):
                return self.point(left) + self._whole(by) * (1 if isinstance(sign, ast.Add) else -1)
            case ast.Call(ast.Name("first" | "last" as which), [of], []):
                held = self._holding(of)
                best = held.argmax(-1) if which == "first" else held.shape[1] - 1 - held[:, ::-1].argmax(-1)
                return np.where(held.any(-1), best, NOWHERE)
        raise self._refused(tree)

    def _whole(self, tree: ast.expr) -> int:
        match tree:
            case ast.Constant(value) if type(value) is int and value < FARTHEST:
                return value
        raise self._refused(tree)

    def _refused(self, tree: ast.expr) -> CircuitError:
        return CircuitError(f"The expression {shown(self._text)} says {shown(ast.unparse(tree))}: {GRAMMAR}.")

    def between(self, lower: Array, upper: Array) -> Array:
        """[query key]; a range that begins before the prompt is undefined, one that ends after the row is cut by the mask."""
        inside = (lower[:, None] <= self._q[None, :]) & (self._q[None, :] < upper[:, None])
        return np.asarray(inside & (lower >= 0)[:, None])

    def _holding(self, tree: ast.expr) -> Array:
        """The earlier positions that hold a token, [query key]."""
        match tree:
            case ast.Subscript(ast.Name("token"), at):
                point = self.point(at)
                there = (point >= 0) & (point <= self._q)
                wanted = self._tokens[np.where(there, point, 0)]
                return np.asarray((self._tokens[None, :] == wanted[:, None]) & self._earlier & there[:, None])
        raise CircuitError(f"The expression {shown(self._text)} looks for {shown(ast.unparse(tree))}: write token[q].")


def _many(tree: ast.expr) -> bool:
    match tree:
        case ast.Call(ast.Name("all"), _, _):
            return True
        case ast.BinOp(left, _, _):
            return _many(left)
    return False


def _shifted(mask: Array, by: int) -> Array:
    """Places `by` positions later; what would lie outside the prompt falls off."""
    size = mask.shape[1]
    shifted = np.zeros_like(mask)
    if abs(by) < size:
        shifted[:, max(by, 0) : size + min(by, 0)] = mask[:, max(-by, 0) : size - max(by, 0)]
    return shifted
