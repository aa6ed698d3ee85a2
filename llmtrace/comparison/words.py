"""What verdicts are put in words with: formats, weights that differ, fields that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.record import Difference
from llmtrace.words import counted

MOST = 4
"""So many formats are named."""


def occurring(stored: Iterable[str]) -> list[str]:
    """Formats, the commonest first; of very many, the last word is how many more.

    >>> occurring(["Q6_K", "Q4_K", "Q4_K"])
    ['Q4_K', 'Q6_K']
    """
    kinds = [kind for kind, _ in Counter(stored).most_common()]
    return kinds if len(kinds) <= MOST else [*kinds[: MOST - 1], f"{len(kinds) - MOST + 1} more formats"]


def explaining(types: Sequence[str]) -> str:
    """What explains a difference.

    >>> explaining(["F16"]), explaining(["Q4_1", "Q8_0", "Q4_0"])
    ('F16 explains', 'Q4_1, Q8_0 and Q4_0 explain')
    """
    if len(types) == 1:
        return f"{types[0]} explains"
    return f"{', '.join(types[:-1])} and {types[-1]} explain"


def differing(tensor: Tensor) -> str:
    """A weight that is not the reference's, and how: what was done to it, or how far off it is."""
    if tensor.what:
        return f"{tensor.name}: {tensor.what}"
    allowed = f", where {tensor.stored or 'its format'} costs {tensor.expected:.1e}" if tensor.expected > 0 else ""
    return f"{tensor.name} is off by {tensor.relative_error:.1e}{allowed}"


def saying(spec: Sequence[Difference]) -> str:
    """What a candidate's file says otherwise: the first field, and how many more."""
    first, *more = spec
    rest = f" and {counted(len(more), 'more field')}" if more else ""
    return f"its file says {first.field} {first.candidate} instead of {first.reference}{rest}"
