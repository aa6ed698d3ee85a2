"""Text that is safe to print. **Hostile text**: tokens, paths and messages may hold control characters that move a terminal's cursor,
recolour it or turn the direction of writing; they are shown as escapes.
"""

from __future__ import annotations

from llmtrace.view.visible import escape, shapeless

LONGEST = 2000
"""Characters of a message, before they are escaped: what a file says may be of any length."""


def visible(text: str) -> str:
    r"""Every character that a terminal obeys or hides, as its Python escape; the rest as it is.

    >>> visible("a\x1b[31mb\n")
    'a\\x1b[31mb\\x0a'
    """
    return "".join(escape(char) if shapeless(char) else char for char in text)


def one_line(text: str) -> str:
    r"""A message on one line, with nothing in it that a terminal would obey, cut where it is too long to read.

    >>> one_line("no such\n   file")
    'no such file'
    """
    line = " ".join(text.split())
    return visible(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…")


def human(amount: int) -> str:
    """Bytes for people.

    >>> human(512), human(3 * 2**20)
    ('512 B', '3.0 MiB')
    """
    size = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{amount} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
