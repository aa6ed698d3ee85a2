"""The table of equations. **Site**: a named place; **equation**: how its value follows from its inputs.

An equation is a plain function. Its first parameter's type says which record it belongs to, and the other parameters' names *are*
the data: `x` is what the part reads, `*terms` what flows into a sum, `tokens` and `positions` the input, a name in this table a
site of the same part, anything else a weight that `weights` declares. A weight whose parameter defaults to `None` may be absent:
whether it is, the record says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, getdoc, signature
from types import NoneType
from typing import Any, TypeAlias, get_args, get_type_hints

from attrs import frozen
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Measure: TypeAlias = Callable[[Any, Mapping[str, Array]], float]
"""Of the record and the equation's own inputs, by parameter name."""
Axes: TypeAlias = str | Callable[[Any, tuple[str, ...]], str]
"""Names separated by blanks, or a function of the record and of the axes of what the part reads."""

INPUTS = ("tokens", "positions")


@frozen
class Equation:
    """One row of the site table."""

    name: str
    """Last part of the site's name; empty where the part itself is the site (`resid_mid`, `logits`)."""
    axes: Axes
    """Of the value."""
    sums: tuple[str, ...]
    """Axes summed over: the product of their sizes sets the rounding that is expected."""
    noise: Measure
    """Rounding inside the equation beyond that, in squared units of the accumulation type."""
    gain: Measure
    """How much the equation enlarges the squared relative error of its inputs."""
    when: Callable[[Any], bool]
    """Of the record: whether the site exists."""
    on_request: bool
    """Large and seldom wanted: recorded only where it is named."""
    opaque: bool
    """No equation: the value can only be captured."""
    integer: bool
    """Whole numbers: they agree exactly, or not."""
    activation: bool
    """Applies an activation, which a runtime may look up in a table."""
    across: Callable[[Any], str]
    """Of the record: the parameters of which one row of the value (one token, one query) reads every row; of others only its own."""
    fn: Callable[..., Array]
    """Of the record and, by name, of its data."""
    arguments: tuple[Parameter, ...]
    """The function's parameters after the record."""

    @property
    def formula(self) -> str:
        """The function's docstring: what the docs print."""
        return getdoc(self.fn) or ""


@frozen
class WeightRow:
    """A weight of a record type: where it stands below the part, and its axes (None where the record has none)."""

    name: str
    """Below the part's address: `W_Q`."""
    axes: Callable[[Any], str | None]
    """Of the record."""


EQUATIONS: dict[type, dict[str, Equation]] = {}
WEIGHTS: dict[type, dict[str, WeightRow]] = {}


def site(
    axes: Axes,
    *,
    name: str | None = None,
    sums: str = "",
    noise: Measure = lambda record, signals: 0.0,
    gain: Measure = lambda record, signals: 1.0,
    when: Callable[[Any], bool] = lambda record: True,
    on_request: bool = False,
    opaque: bool = False,
    integer: bool = False,
    activation: bool = False,
    across: str | Callable[[Any], str] = "",
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Enter a function in the table, for the record types of its first parameter, under its own name or `name`."""

    def register(fn: Callable[..., Array]) -> Callable[..., Array]:
        own, *arguments = signature(fn).parameters.values()
        hint = get_type_hints(fn)[own.name]
        key = fn.__name__ if name is None else name
        row = Equation(
            key, axes, tuple(sums.split()), noise, gain, when, on_request, opaque, integer, activation,
            across if callable(across) else _always(across), fn, tuple(arguments),
        )  # fmt: skip
        for record in [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]:
            EQUATIONS.setdefault(record, {})[key] = row
        return fn

    return register


def weights(record: type, **axes: str | Callable[[Any], str | None] | WeightRow) -> None:
    """Declare the weights of a record type by parameter name: their axes, a function from the record to them, or a whole row."""
    for parameter, value in axes.items():
        if isinstance(value, WeightRow):
            row = value
        else:
            row = WeightRow(parameter, value if callable(value) else _always(value))
        WEIGHTS.setdefault(record, {})[parameter] = row


def _always(axes: str) -> Callable[[Any], str]:
    return lambda record: axes
