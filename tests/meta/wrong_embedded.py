"""Backends that open something else by the embedded model's name."""

from __future__ import annotations

from attrs import evolve

from llmtrace.data import PREFIX
from tests.meta.honest import Honest
from tests.meta.lie import Lie


def naming(change):
    """A backend whose session of an embedded model `change` changes."""

    class Named(Honest):
        @classmethod
        def open(cls, source, options):
            session = super().open(source, options)
            if source.startswith(PREFIX):
                change(session)
            return session

    Named.__name__ = f"Embedded{change.__name__.capitalize()}"
    return Named


def mute(session):
    session.tokenizer = None


class Spoken:
    """Another tokenizer, with other letters or other texts."""

    def __init__(self, tokenizer, letters="", before=""):
        self.tokenizer, self.letters, self.before = tokenizer, str.maketrans(letters, letters[::-1]), before

    def encode(self, text, *, special=True):
        return self.tokenizer.encode(text.translate(self.letters), special=special)

    def token(self, id):
        token = self.tokenizer.token(id)
        return evolve(token, text=self.before + token.text)


def swaps(session):
    """Knows the letters in another order."""
    session.tokenizer = Spoken(session.tokenizer, letters="ab")


def blanks(session):
    """Says a blank before each letter."""
    session.tokenizer = Spoken(session.tokenizer, before=" ")


def scratch(session):
    """Has other weights, where nothing reads what they write."""
    weights = dict(session.weights)
    weights["blocks.1.mlp.W_out"] = 1.5 * weights["blocks.1.mlp.W_out"]
    session.__init__(session.spec, weights, session.stored, "float32", session.info, session.tokenizer)


TEST = "test_the_embedded_model_is_the_cores"
LIES = [
    Lie("it has no tokenizer", naming(mute), TEST, "builtin:induction has no tokenizer"),
    Lie("letters have other ids", naming(swaps), TEST, r"becomes \[0, 3, 2, 6.* instead of \[0, 3, 1, 6"),
    Lie("tokens have other texts", naming(blanks), TEST, "token 0 reads ' <bos>' instead of '<bos>'"),
    Lie("it has other weights", naming(scratch), TEST, r"blocks\.1\.mlp\.out: "),
]  # fmt: skip
