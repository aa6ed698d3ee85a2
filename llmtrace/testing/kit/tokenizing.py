"""Tokenizing: what a session's tokenizer says of texts and tokens. A session without one is not held to anything here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from llmtrace.model import Model
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.model import TinyModel
from llmtrace.tokens import FindsTokens, Tokenizer
from llmtrace.trace import Token


class TokenizingKit(Kit):
    """What the tokenizer says."""

    def test_the_tokenizer_gives_back_the_text(self, one: TinyModel, opened: Callable[..., Model]) -> None:
        """A text becomes ids of the vocabulary, each of which is a `Token` with that id; their texts are the text again, with
        `special=False` nothing but the text, but for a blank in front of it."""
        model = opened(one)
        if model.tokenizer is None:
            pytest.skip(f"the session of {self.backend.name} has no tokenizer")
        lawful(model.tokenizer, self.text, model.spec.vocab)


def lawful(tokenizer: Tokenizer, text: str, vocab: int) -> None:
    """Hold a tokenizer to the law. Raises `AssertionError`."""
    ids = _encoded(tokenizer, text, vocab, special=True)
    plain = _encoded(tokenizer, text, vocab, special=False)
    assert any(ids[at : at + len(plain)] == plain for at in range(len(ids) - len(plain) + 1)), (
        f"encode({text!r}) gives {ids}, which does not hold {plain}, what it gives with special=False"
    )
    said, bare = _joined(tokenizer, ids), _joined(tokenizer, plain)
    assert text in said, f"the tokens of {text!r} are together {said!r}, which does not hold it"
    assert bare.removeprefix(" ") == text, f"with special=False, the tokens of {text!r} are together {bare!r}"
    if isinstance(tokenizer, FindsTokens):
        for token in map(tokenizer.token, plain):
            found = tokenizer.find(token.text)
            assert found is None or tokenizer.token(found).text == token.text, (
                f"find({token.text!r}) gives {found}, whose text is {tokenizer.token(found).text!r}"
            )


def _encoded(tokenizer: Tokenizer, text: str, vocab: int, *, special: bool) -> list[int]:
    call = f"encode({text!r}, special={special})"
    try:
        ids: object = tokenizer.encode(text, special=special)
    except Exception as error:
        raise AssertionError(
            f"{call} fails: {type(error).__name__}: {error}; if the tokenizer cannot say this text, name one that it can (`text` of the kit)"
        ) from error
    assert isinstance(ids, list), f"{call} gives {ids!r:.80} instead of a list of ids"
    assert ids, f"{call} gives no token"
    for id in ids:
        assert isinstance(id, int), f"{call} gives {id!r:.80} as an id: it must be an int"
        assert 0 <= id < vocab, f"{call} gives the id {id}, and the vocabulary ends at {vocab - 1}"
    return list(ids)


def _joined(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The texts of the tokens, by their bytes where a text cannot say them."""
    raw = b""
    for id in ids:
        token: object = tokenizer.token(id)
        assert isinstance(token, Token), f"token({id}) gives {token!r:.80}, which is no Token"
        assert token.id == id, f"token({id}) gives the token {token.id}"
        assert isinstance(token.text, str), f"token({id}) has the text {token.text!r:.80}, which is no str"
        raw += token.text.encode() if token.bytes is None else token.bytes
    return raw.decode("utf-8", "replace")
