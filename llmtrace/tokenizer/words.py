"""A word-level `tokenizer.json`: text is split at blanks, and every word is a token. **Added token**: a text that is a token wherever
it stands, within words too; **template**: the ids that are put before and after.

A word that is not in the vocabulary is an error here, never a silent «unknown» token: an analysis of a prompt that nobody wrote helps
nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen

from llmtrace.chat import ChatTemplate
from llmtrace.errors import ModelOpenError, PromptError, shown, suggest
from llmtrace.trace import Token

BLANKS = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
"""Unicode's White_Space, which is what WhitespaceSplit splits at; `str.split` splits at four control characters more."""
SHOWN = 20
"""A vocabulary up to this size is listed whole where a word is not in it."""


def reads(data: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` has no parts but those that this module implements."""
    added = data.get("added_tokens") or []
    kinds = [
        part and part.get("type") if isinstance(part, Mapping) or part is None else "?" for part in map(data.get, PARTS)
    ]
    return (
        data["model"].get("type") == "WordLevel"
        and kinds[:2] == [None, "WhitespaceSplit"]
        and kinds[2] in (None, "TemplateProcessing")
        and not any(token.get("single_word") for token in added)
        and not any(data.get(part) for part in ("truncation", "padding"))
    )


PARTS = ("normalizer", "pre_tokenizer", "post_processor")


@frozen(slots=False)
class WordTokenizer:
    """Words to ids and back."""

    vocab: Mapping[str, int]
    """Word to id, added tokens included."""
    added: tuple[str, ...]
    """Added tokens, longest first."""
    before: tuple[int, ...] = ()
    """Ids that the template puts before the text."""
    after: tuple[int, ...] = ()
    """Ids that it puts after."""
    chat_template: ChatTemplate | None = None
    """How a conversation is written out, where the directory says."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> WordTokenizer:
        """From the content of a `tokenizer.json` that `reads`. Raises `ModelOpenError` where its parts do not fit together."""
        try:
            vocab = {str(word): int(id) for word, id in data["model"]["vocab"].items()}
            added = {str(token["content"]): int(token["id"]) for token in data.get("added_tokens") or []}
            before, after = _template(data.get("post_processor"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelOpenError(f"{path} is not a word-level tokenizer: {type(error).__name__}: {error}.") from error
        return cls(vocab | added, tuple(sorted(added, key=len, reverse=True)), before, after)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids, with or without the template's. Raises `PromptError` for a word that is not in the vocabulary."""
        ids = [self._id(word) for word in self._words(text)]
        return [*self.before, *ids, *self.after] if special else ids

    def find(self, text: str) -> int | None:
        """The id of a word."""
        return self.vocab.get(text)

    def token(self, id: int) -> Token:
        """The word of an id; an id that has none has an empty text."""
        return Token(id, self._by_id.get(id, ""))

    @cached_property
    def _by_id(self) -> dict[int, str]:
        return {id: word for word, id in self.vocab.items()}

    def _words(self, text: str) -> Iterator[str]:
        pieces = re.split(f"({'|'.join(map(re.escape, self.added))})", text) if self.added else [text]
        for piece in pieces:
            yield from [piece] if piece in self.added else filter(None, BLANKS.split(piece))

    def _id(self, word: str) -> int:
        if word not in self.vocab:
            few = f" Its words are {' '.join(map(_plainly, self.vocab))}." if len(self.vocab) <= SHOWN else ""
            raise PromptError(
                f"The word {word!r} is not in the vocabulary of this model.{suggest(word, self.vocab)}{few}"
            )
        return self.vocab[word]


def _plainly(word: str) -> str:
    """A word as it is, unless it is one that a file hides something in."""
    return word if word.isprintable() and len(word) <= 40 else shown(word, 40)


def _template(post: Mapping[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after the text, of a template for a single sequence."""
    sides: tuple[list[int], list[int]] = ([], [])
    place = 0
    for piece in post["single"] if post else []:
        if "Sequence" in piece:
            place = 1
        else:
            sides[place].extend(int(id) for id in post["special_tokens"][piece["SpecialToken"]["id"]]["ids"])  # type: ignore[index]
    return tuple(sides[0]), tuple(sides[1])
