"""Whether both sides read a text as the same tokens: the commonest fault, and told before any number.

**Read**: what became of that question.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from llmtrace.errors import PromptError
from llmtrace.spans import spans
from llmtrace.tokens import Tokenizer, token_of
from llmtrace.trace import Token


@frozen
class TokenDifference:
    """A prompt that the candidate's tokenizer reads otherwise."""

    prompt: int | None
    """Which one, from 0; None for a built-in text that was not run, as its ids tell little."""
    text: str
    """The text that was read."""
    index: int
    """The first token that differs, from 0."""
    byte: int | None
    """Where in the text that token begins, in bytes of UTF-8; None where the tokens do not spell the text."""
    reference: Token | None
    """The reference's token there; None where it has no more."""
    candidate: Token | None
    """The candidate's."""
    what: str
    """In words: `no <bos> in front`."""


def token_difference(
    number: int | None, text: str, reference: Sequence[Token], candidate: Sequence[Token]
) -> TokenDifference | None:
    """The first difference of two readings of one text, by id; None where there is none."""
    ours, theirs = ([token.id for token in tokens] for tokens in (reference, candidate))
    if ours == theirs:
        return None
    index = next(
        (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    r = reference[index] if index < len(ours) else None
    c = candidate[index] if index < len(theirs) else None
    return TokenDifference(number, text, index, _byte(reference, text, index), r, c, _what(reference, candidate, index))


@frozen
class Read:
    """How both tokenizers read the texts."""

    differences: tuple[TokenDifference, ...] = ()
    """Texts that they read otherwise."""
    not_compared: str = ""
    """Why no text was compared; empty where one was."""


def read_by_both(
    reference: Tokenizer | None, candidate: Tokenizer | None, texts: Sequence[tuple[int | None, str]]
) -> Read:
    """Compare the readings of texts, each with the number of its prompt (None: it is not run).

    What the reference's tokenizer cannot read is left out.
    """
    if reference is None or candidate is None:
        lacking = " and ".join(
            name
            for name, tokenizer in (("the reference", reference), ("the candidate", candidate))
            if tokenizer is None
        )
        return Read(not_compared=f"{lacking} ha{'ve' if ' and ' in lacking else 's'} no tokenizer")
    found: list[TokenDifference] = []
    readable = 0
    for number, text in texts:
        r, c = read_by(reference, text), read_by(candidate, text)
        if isinstance(r, str):
            continue
        readable += 1
        if isinstance(c, str):
            first = r[0] if r else None
            found.append(TokenDifference(number, text, 0, None, first, None, f"it cannot read the prompt: {c}"))
        elif (difference := token_difference(number, text, r, c)) is not None:
            found.append(difference)
    return Read(tuple(found), "" if readable else "the reference's tokenizer can read none of the built-in texts")


def read_by(tokenizer: Tokenizer, text: str) -> tuple[Token, ...] | str:
    """A text as one side's tokenizer reads it, or why it does not."""
    try:
        return tuple(token_of(id, tokenizer) for id in tokenizer.encode(text))
    except PromptError as error:
        return str(error)


def _byte(tokens: Sequence[Token], text: str, index: int) -> int | None:
    try:
        found = spans(tokens, text)
    except PromptError:
        return None
    return found[index][0] if index < len(found) else len(text.encode())


def _what(reference: Sequence[Token], candidate: Sequence[Token], index: int) -> str:
    """What the difference is, where it is one of the usual."""
    ours, theirs = ([token.id for token in tokens] for tokens in (reference, candidate))
    if ours[1:] == theirs:
        return f"{_shown(reference[0])} is not put in front"
    if theirs[1:] == ours and theirs[:1] == ours[:1]:
        return f"{_shown(candidate[0])} is put in front twice"
    if theirs[1:] == ours:
        return f"{_shown(candidate[0])} is put in front"
    if ours[:-1] == theirs:
        return f"{_shown(reference[-1])} is not put at the end"
    if theirs[:-1] == ours:
        return f"{_shown(candidate[-1])} is put at the end"
    if [token.text for token in reference] == [token.text for token in candidate]:
        return "the same texts under other ids"
    r = _shown(reference[index]) if index < len(reference) else "nothing more"
    c = _shown(candidate[index]) if index < len(candidate) else "nothing more"
    return f"{c} instead of {r}"


def _shown(token: Token) -> str:
    return repr(token.text) if token.text else f"token {token.id}"
