"""Where in the text each token stands. **Span**: first byte and byte after the last, of the text as UTF-8; bytes, because a token may
end inside a character.

A token that the tokenizer added (`<bos>`) covers nothing, and has an empty span where it stands. A blank that it put in front is not in
the text, and so in no span; blanks that it leaves out (word-level vocabularies) are in none either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

from llmtrace.errors import PromptError
from llmtrace.trace import Token

Span: TypeAlias = tuple[int, int]
MOST_ADDED = 4
"""A tokenizer adds at most so many tokens before a text, and after it."""
BLANK = re.compile(b"[\t-\r ]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80")
"""Unicode's blanks, in UTF-8."""


def spans(tokens: Sequence[Token], text: str) -> tuple[Span, ...]:
    r"""The span of each token in the text that it was made of.

    Raises `PromptError`, which names the first character that the tokens do not spell, where they are not this text's: one that the
    tokenizer changes (to lower case, say), or that its vocabulary has no tokens for.

    >>> spans([Token(0, "<bos>"), Token(5, "caf"), Token(6, "\ufffd", b"\xc3"), Token(7, "\ufffd", b"\xa9")], "café")
    ((0, 0), (0, 3), (3, 4), (4, 5))
    """
    data = encoded(text)
    raws = [token.text.encode("utf-8", "surrogatepass") if token.bytes is None else token.bytes for token in tokens]
    failed = 0
    for before, after in _added(len(raws)):
        found, reached = _walk(raws[before : len(raws) - after], data)
        if found is not None:
            return ((0, 0),) * before + tuple(found) + ((len(data), len(data)),) * after
        failed = failed or reached
    place = len(data[:failed].decode("utf-8", "ignore"))
    raise PromptError(
        f"The tokens do not spell the text: its character {place}, {text[place]!r}, is not in them. "
        "The tokenizer changes the text, or its vocabulary has no token for that."
        if place < len(text)
        else "The tokens spell more than the text."
    )


def gaps(found: Sequence[Span], length: int) -> list[Span]:
    """What of a text of so many bytes is in no span: blanks.

    >>> gaps([(0, 0), (0, 3), (4, 5)], 6)
    [(3, 4), (5, 6)]
    """
    ends = [0, *(end for _, end in found)]
    starts = [*(start for start, _ in found), length]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]


def check(tokens: Sequence[Token], text: str, marks: Collection[int], file: object, *, words: bool = False) -> None:
    """Hold a tokenizer that should spell every text to it: some vocabularies lack a byte, and their runtimes leave it out silently.

    Blanks beside `marks` (ids) may go, as a file may ask for that; with `words`, all blanks may, which only part the words. Raises
    `PromptError`, which names the vocabulary's `file` and the character.
    """
    whose, fix = f"The vocabulary of {file} cannot spell", "give token ids, or another text."
    try:
        found = spans(tokens, text)
    except PromptError as error:
        raise PromptError(
            f"{whose} this prompt. {error} Where it has none, the runtime leaves it out: {fix}"
        ) from error
    beside = {at for token, span in zip(tokens, found, strict=True) if token.id in marks for at in span}
    data = text.encode()
    for start, end in gaps(found, len(data)):
        if not words and not {start, end} & beside:
            place = len(data[:start].decode())
            raise PromptError(
                f"{whose} {data[start:end].decode()!r}, at character {place} of the prompt, and the runtime leaves it out: {fix}"
            )


def encoded(text: str) -> bytes:
    """A text as UTF-8. Raises `PromptError` for half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"The prompt is not valid Unicode: {error.reason} at character {error.start}.") from error


def _added(tokens: int) -> Iterator[tuple[int, int]]:
    """How many tokens were added before and after, fewest first, and rather before.

    The first that spells anything says where the text is lost: with more tokens out of the way, chance leads further.
    """
    for both in range(min(tokens, 2 * MOST_ADDED) + 1):
        for after in range(both + 1):
            if both - after <= MOST_ADDED and after <= MOST_ADDED:
                yield both - after, after


def _walk(raws: Sequence[bytes], data: bytes) -> tuple[list[Span] | None, int]:
    """The spans, if these bytes are the text, and the byte up to which they were."""
    found, at = [], 0
    for raw in raws:
        span = next(
            ((start, start + len(piece)) for start, piece in _ways(raw, data, at) if data.startswith(piece, start)),
            None,
        )
        if span is None:
            return None, at
        found.append(span)
        at = span[1]
    return (found if [at, *_after_blanks(data, at)][-1] == len(data) else None), at


def _ways(raw: bytes, data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Where a token may begin, and what it covers: here, here without a blank in front, or after blanks that are left out, few rather
    than many."""
    yield at, raw
    if raw.startswith(b" "):
        yield at, raw[1:]
    for after in _after_blanks(data, at):
        yield after, raw


def _after_blanks(data: bytes, at: int) -> Iterator[int]:
    """Where each blank from here on ends."""
    while found := BLANK.match(data, at):
        at = found.end()
        yield at
