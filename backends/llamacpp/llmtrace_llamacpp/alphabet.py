"""How vocabularies write single bytes. **Spelled**: a byte as GPT-2's vocabulary writes it, printable ones as themselves, the others as
characters from U+0100 on.
"""

from __future__ import annotations

SHOWN = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that are spelled as themselves."""
BLANK = "\u2581"
"""How vocabularies that are not byte-level write a blank."""


def spelled(byte: int) -> str:
    """A byte as a byte-level vocabulary writes it.

    >>> spelled(0x41), spelled(0x20)
    ('A', 'Ġ')
    """
    return chr(byte) if byte in SHOWN else chr(256 + sum(other not in SHOWN for other in range(byte)))
