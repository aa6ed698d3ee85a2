"""Backends whose tokenizer says something else than its tokens."""

from __future__ import annotations

from llmtrace.trace import Token
from tests.meta.honest import HonestSession, Letters
from tests.meta.lie import Lie


def speaking(kind):
    """A session with another tokenizer."""

    class Speaks(HonestSession):
        def __init__(self, *all):
            super().__init__(*all)
            self.tokenizer = kind()

    Speaks.__name__ = kind.__name__
    return Speaks


class TextTokens(Letters):
    """Answers with the text alone."""

    def token(self, id):
        return super().token(id).text


class OffByOne(Letters):
    def token(self, id):
        return Token(id + 1, super().token(id).text)


class AlwaysSpecial(Letters):
    """Begins every text, also where that is not wanted."""

    def encode(self, text, *, special=True):
        return super().encode(text)


class OtherVocabulary(Letters):
    """Has more tokens than the model."""

    def encode(self, text, *, special=True):
        return [id + 40 for id in super().encode(text, special=special)]


class Bare(Letters):
    """Loses blanks."""

    def encode(self, text, *, special=True):
        return super().encode(text.replace(" ", ""), special=special)


class FewLetters(Letters):
    """Knows no blank."""

    def encode(self, text, *, special=True):
        return [0] * special + ["thecasonm".index(letter) + 1 for letter in text]


class Floats(Letters):
    def encode(self, text, *, special=True):
        return [float(id) for id in super().encode(text, special=special)]


class Forgets(Letters):
    """With special tokens, it drops the end of the text."""

    def encode(self, text, *, special=True):
        return super().encode(text[:-1] if special else text, special=special)


class FindsAnother(Letters):
    def find(self, text):
        return 1 + super().find(text)


TEST = "test_the_tokenizer_gives_back_the_text"
LIES = [
    Lie("a token is a text", speaking(TextTokens), TEST, r"token\(0\) gives '<s>', which is no Token"),
    Lie("a token has another id", speaking(OffByOne), TEST, r"token\(0\) gives the token 1"),
    Lie("special=False is ignored", speaking(AlwaysSpecial), TEST, r"with special=False, the tokens .* are together '<s>the cat"),
    Lie("ids are outside of the vocabulary", speaking(OtherVocabulary), TEST, r"gives the id \d+, and the vocabulary ends at 96"),
    Lie("blanks are lost", speaking(Bare), TEST, r"are together '<s>thecatsat\S+', which does not hold it"),
    Lie("the kit's text cannot be said", speaking(FewLetters), TEST, r"fails: ValueError: substring.*`text` of the kit"),
    Lie("ids are no integers", speaking(Floats), TEST, r"gives 0\.0 as an id"),
    Lie("the end is lost beside special tokens", speaking(Forgets), TEST, r"which does not hold \[.*special=False"),
    Lie("another token is found", speaking(FindsAnother), TEST, r"find\('t'\) gives 86, whose text is 'u'"),
]  # fmt: skip
