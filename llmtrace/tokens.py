"""Text to tokens, by whichever tokenizer the model brings. **Special tokens**: those that the tokenizer adds by itself (`<bos>`)."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Protocol, runtime_checkable

from llmtrace.errors import PromptError, SchemaViolationError
from llmtrace.trace import Token

ANY = "a"
"""A text, to see what a tokenizer puts in front of it."""


@runtime_checkable
class Tokenizer(Protocol):
    """What a session offers where its model has a tokenizer."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, with or without the special tokens that the tokenizer adds by itself."""

    def token(self, id: int) -> Token:
        """One token with its text, and its bytes where they are not valid UTF-8 alone."""


@runtime_checkable
class FindsTokens(Protocol):
    """A tokenizer that looks a token up by its exact text: encoding may put a space in front, and so never give some tokens."""

    def find(self, text: str) -> int | None:
        """The id of the token whose text is exactly this, or None."""


def encode_prompt(
    prompt: str | Sequence[int], tokenizer: Tokenizer | None, vocab: int, context: int | None
) -> tuple[Token, ...]:
    """A prompt as tokens.

    Raises `PromptError` for an empty prompt, a text where there is no tokenizer, an id outside the vocabulary, or more tokens than
    the model's context.
    """
    if isinstance(prompt, str):
        if tokenizer is None:
            raise PromptError("This model has no tokenizer: give token ids (tokens=[5, 17, 3], --tokens 5,17,3).")
        ids = tokenizer.encode(prompt)
    else:
        try:
            ids = [index(token) for token in prompt]
        except TypeError:
            raise PromptError(f"A prompt is a text or a list of token ids, not {prompt!r}.") from None
    if not ids:
        raise PromptError("The prompt is empty: give at least one token.")
    for token in ids:
        if not 0 <= token < vocab:
            raise PromptError(f"Token id {token} is outside the vocabulary of this model (0 … {vocab - 1}).")
    if context is not None and len(ids) > context:
        raise PromptError(f"The prompt has {len(ids)} tokens, over the model's context of {context}: shorten it.")
    return tuple(token_of(token, tokenizer) for token in ids)


def token_of(id: int, tokenizer: Tokenizer | None) -> Token:
    """A token of the vocabulary, with its text where there is a tokenizer. Raises `SchemaViolationError` where that answers otherwise."""
    found: object = Token(id) if tokenizer is None else tokenizer.token(id)
    if not isinstance(found, Token):
        raise SchemaViolationError(
            f"The tokenizer {type(tokenizer).__name__} answers {found!r:.60} for the token {id}, which is no Token: report it to the author "
            "of the backend that brings it."
        )
    return found


def in_front(tokenizer: Tokenizer | None) -> list[int]:
    """The tokens that a tokenizer puts before a text by itself; one, mostly, or none. None, too, where its vocabulary spells no text to ask it with."""
    if tokenizer is None:
        return []
    try:
        plain, whole = tokenizer.encode(ANY, special=False), tokenizer.encode(ANY)
    except PromptError:
        return []
    at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    return whole[:at]


def one_token(text: str | int, tokenizer: Tokenizer | None, vocab: int) -> Token:
    """A target or foil: an id, or a text that is exactly one token.

    No space is guessed: a text that is several tokens is a `PromptError` that shows them.
    """
    if not isinstance(text, str):
        (token,) = encode_prompt([text], tokenizer, vocab, None)
        return token
    if tokenizer is None:
        raise PromptError(f"This model has no tokenizer: give the target {text!r} as a token id.")
    if isinstance(tokenizer, FindsTokens) and (found := tokenizer.find(text)) is not None:
        return token_of(found, tokenizer)
    ids = tokenizer.encode(text, special=False)
    tokens = [token_of(token, tokenizer) for token in ids]
    if len(ids) != 1 or (tokens[0].bytes is None and tokens[0].text != text):
        shown = " · ".join(repr(token.text) for token in tokens) or "nothing"
        if len(ids) == 1:
            raise PromptError(
                f"The target {text!r} is not one token: the tokenizer reads it as {shown}. Name a token exactly, or give an id."
            )
        raise PromptError(f"The target {text!r} is not one token but {shown}: name one of them, or give an id.")
    return tokens[0]
