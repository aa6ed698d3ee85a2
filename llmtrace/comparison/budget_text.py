"""What predictions are made on. **Piece**: tokens that are run at once, and which of their predictions count; **chunk**: a piece of a text.

A text is read as llama.cpp's `perplexity --kl-divergence` reads it (`tools/perplexity/perplexity.cpp`): cut into chunks of so many tokens, what does
not fill one left out; the first token of each replaced by the one that begins a text, where the tokenizer puts one there; predictions counted from the
middle on, so that each has some context, up to the last but one, whose next token is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from llmtrace.errors import OptionError, PromptError
from llmtrace.model import Model, Prompt
from llmtrace.tokens import in_front

CONTEXT = 512
"""Tokens of a chunk."""


@frozen
class Piece:
    """One prompt, or one chunk of a text."""

    ids: tuple[int, ...]
    """What is run."""
    first: int = 0
    """The first prediction that counts."""
    following: tuple[int, ...] | None = None
    """Of a chunk, the token that comes after each prediction that counts; of a prompt all count, and None is known."""

    @property
    def counted(self) -> list[int]:
        """The places of the predictions that count."""
        return list(range(self.first, len(self.ids) if self.following is None else self.first + len(self.following)))


def chunks(model: Model, text: Prompt, context: int, most: int | None, limit: int | None) -> list[Piece]:
    """A text, or its token ids, in chunks, `most` of them at most.

    Raises `OptionError` for a context of fewer than 4 tokens or more than `limit`, the least that a side has been trained on, and
    `PromptError` for a text that fills no chunk, or that cannot be read.
    """
    if context < 4 or (most is not None and most < 1):
        raise OptionError(f"A text is read in chunks of at least 4 tokens, and at least one: got {context} and {most}.")
    if limit is not None and context > limit:
        raise OptionError(
            f"A chunk of {context:,} tokens is more than the models' context of {limit:,}: ask for fewer (--context)."
        )
    ids = _read(model, text)
    if len(ids) < context:
        raise PromptError(
            f"The text has {len(ids):,} tokens, which fills no chunk of {context:,}: take a longer text, or shorter chunks (--context)."
        )
    begins = in_front(model.tokenizer)
    starts = range(0, len(ids) - context + 1, context)
    return [_chunk(ids[start : start + context], begins) for start in starts[:most]]


def _chunk(ids: Sequence[int], begins: Sequence[int]) -> Piece:
    first = len(ids) // 2
    return Piece((*begins[-1:], *ids[len(begins[-1:]) :]), first, tuple(ids[first + 1 :]))


def _read(model: Model, text: Prompt) -> list[int]:
    if not isinstance(text, str):
        bad = next((token for token in text if not 0 <= token < model.spec.vocab), None)
        if bad is not None:
            raise PromptError(f"Token id {bad} is outside the vocabulary of this model (0 … {model.spec.vocab - 1}).")
        return [int(token) for token in text]
    if model.tokenizer is None:
        raise PromptError(f"{model.info.source} has no tokenizer to read the text with: give its token ids.")
    return [*in_front(model.tokenizer), *model.tokenizer.encode(text, special=False)]


def batches(pieces: Sequence[Piece], most: int) -> Iterator[list[Piece]]:
    """Pieces that are run together: as many as have `most` predictions that count, and at least one."""
    batch: list[Piece] = []
    for piece in pieces:
        if batch and sum(len(each.counted) for each in (*batch, piece)) > most:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
