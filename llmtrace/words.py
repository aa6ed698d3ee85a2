"""Words that messages everywhere are made of."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """So many of something.

    >>> counted(1, "chunk"), counted(2048, "token")
    ('1 chunk', '2,048 tokens')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"
