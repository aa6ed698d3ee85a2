"""The honest backend that the wrong ones are made from. **Seam**: where a wrong session gets at what is handed over.

It is the reference in float32, which computes as a runtime would; it holds its weights in memory, and runs prompts together one by
one. It passes the whole kit, so a backend that differs from it in a few lines fails because of them.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, frozen

from llmtrace.data import PREFIX, embedded
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.reference.plugin import ReferenceBackend
from llmtrace.reference.session import ReferenceSession
from llmtrace.schema.arithmetic import NumPy
from llmtrace.selection import Cut
from llmtrace.tokenizer import open_tokenizer
from llmtrace.trace import ModelInfo, Token


@frozen
class HonestOptions:
    """It takes one setting."""

    threads: int = 1
    """Makes no difference."""


class Letters:
    """A token for each printable character of ASCII, and one that begins a text."""

    def encode(self, text, *, special=True):
        return [0] * special + [ord(letter) - 31 for letter in text]

    def token(self, id):
        return Token(id, "<s>" if id == 0 else chr(id + 31))

    def find(self, text):
        return next((id for id in range(96) if self.token(id).text == text), None)


class HonestSession(ReferenceSession):
    """One open model."""

    lasting = ("embed", "blocks.0.attn.z", "logits")
    arithmetic = NumPy()

    def hand(self, site, array):
        """What is handed over as `site`, whole: a wrong session hands over something else."""
        return array

    def wrap(self, observer):
        """Whom it is handed to: a wrong session stands between."""
        return observer

    def run(self, request, observer):
        whole = {site: Cut((None,) * len(self._equations.steps[site].axes)) for site in request.cuts}
        super().run(evolve(request, cuts=whole), Seam(self, request, self.wrap(observer)))

    def run_many(self, requests, observers):
        for request, observer in zip(requests, observers, strict=True):
            self.run(request, observer)


class Between:
    """An observer in front of another."""

    def __init__(self, observer):
        self.observer = observer

    def signal(self, site, array):
        self.observer.signal(site, array)

    def layer_done(self, layer):
        self.observer.layer_done(layer)


class Seam(Between):
    """Cuts what the session hands over, as asked."""

    def __init__(self, session, request, observer):
        super().__init__(observer)
        self.session, self.request = session, request

    def signal(self, site, array):
        self.observer.signal(site, self.request.cuts[site].apply(self.session.hand(site, array)))


class Honest:
    """Its backend. A wrong one is a subclass; a wrong session needs no more than its name here."""

    name = "honest"
    runtime = "NumPy"
    distributions = ("numpy",)
    options = HonestOptions
    capabilities = ("weights", "replay", "many", "edits", "replacement")
    session = HonestSession
    probe = ReferenceBackend.probe

    @staticmethod
    def preset(preset):
        return HonestOptions()

    @classmethod
    def open(cls, source, options):
        known = source.startswith(PREFIX)
        directory = embedded(source) if known else Path(source)
        checkpoint = open_checkpoint(directory)
        tokenizer = open_tokenizer(directory)[0] if known else Letters()
        info = ModelInfo(source=source, backend=cls.name, runtime=cls.runtime, weights="float32")
        weights = dict(checkpoint.weights)
        return cls.session(checkpoint.spec, weights, checkpoint.stored, "float32", info, tokenizer)
