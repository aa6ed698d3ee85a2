"""Numbers for people. **Significant**: three digits that say something, however small the number: never `0.0%`."""

from __future__ import annotations


def probability(value: float) -> str:
    """Three significant digits, in powers of ten below 0.0001; as the page writes them.

    >>> probability(0.7731), probability(0.00091), probability(3.1e-7), probability(0.0)
    ('0.773', '0.000910', '3.10e-07', '0')
    """
    return f"{value:#.3g}" if value else "0"


def ranks(shared: tuple[int, int]) -> str:
    """A rank, or the span of ranks that equally likely tokens share.

    >>> ranks((44, 44)), ranks((1, 16))
    ('44', '1-16')
    """
    first, last = shared
    return str(first) if first == last else f"{first}-{last}"
