"""Token text made safe to look at. **Mark**: a visible stand-in for a character that has no shape of its own or that moves others.

Tokens are text that strangers write: they hold line breaks, terminal escapes, marks that reverse the writing direction, halves of
characters. Nothing here deletes; everything is shown, as itself or as a mark.
"""

from __future__ import annotations

import unicodedata

SPACE, NEWLINE, TAB, BASE = "␣", "⏎", "⇥", "◌"
"""The marks of a blank, a line break, a tab, and what a combining accent without a letter stands on."""

_BLANK = frozenset(
    [
        0x034F,
        0x115F,
        0x1160,
        0x17B4,
        0x17B5,
        0x2800,
        0x3164,
        0xFFA0,
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
"""Characters without a shape that Unicode counts among letters, accents and symbols."""
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def shapeless(character: str) -> bool:
    """Whether a character has no shape of its own: controls, bidi and format characters, surrogates, unassigned ones, odd blanks."""
    return character != " " and (unicodedata.category(character)[0] in "CZ" or ord(character) in _BLANK)


def escape(character: str) -> str:
    r"""A character by its number.

    >>> escape("\x1b"), escape("\u202e")
    ('\\x1b', '\\u202e')
    """
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def quoted(text: str) -> str:
    r"""A text between double quotes, unambiguous and in one line; what has no shape is escaped as in Python.

    >>> print(quoted(' a"\x1b'))
    " a\"\x1b"
    """
    out = [escape(text[0])] if text and unicodedata.combining(text[0]) else []
    rest = text[len(out) :]
    return '"' + "".join(out + [_SHORT.get(c) or (escape(c) if shapeless(c) else c) for c in rest]) + '"'


def named(text: str, id: int) -> str:
    """A token in a sentence: its text in quotes, or its id where the model has no tokenizer.

    >>> named("", 17)
    'token 17'
    """
    return quoted(text) if text else f"token {id}"


def runs(text: str, raw: bytes | None = None) -> list[str]:
    r"""A token as alternating plain text and marks, plain text first.

    `raw` are the token's bytes where `text` cannot say them: then they are the mark.

    >>> runs(" Paris\n"), runs("\ufffd", b"\xe2\x96")
    (['', '␣', 'Paris', '⏎'], ['', '‹E2 96›'])
    """
    if raw is not None:
        return ["", f"‹{raw.hex(' ').upper()}›"]
    out = [""]
    for place, character in enumerate(text):
        mark = {" ": SPACE, "\n": NEWLINE, "\t": TAB}.get(character) or (
            escape(character) if shapeless(character) else ""
        )
        if not mark and place == 0 and unicodedata.category(character) in ("Mn", "Me", "Mc"):
            out += [BASE, character]
        elif mark and len(out) % 2:
            out.append(mark)
        elif mark:
            out[-1] += mark
        elif len(out) % 2:
            out[-1] += character
        else:
            out.append(character)
    return out
