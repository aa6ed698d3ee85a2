"""What importing came to. **Imported**: the trace, how it stands to the model's equations, and what of the dump was left out."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from llmtrace.documents import token_document
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.verify import LocalError
from llmtrace.trace import Trace
from llmtrace.verifying import Verdicts, verdict_document
from llmtrace.words import counted


@frozen
class LeftOut:
    """An array that was not imported."""

    name: str
    """In the dump."""
    reason: str
    """Why, to follow the name."""


@frozen(eq=False, repr=False)
class Imported:
    """A dump as a trace, held against the equations of the model that it is said to be of."""

    dump: str
    """What was imported, as messages call it."""
    trace: Trace
    """What was imported; its notes say what a reader should know, and its signals' provenance where each comes from."""
    verdicts: Verdicts | None
    """Which signals hold, and which do not, with the likely reason; None where nothing could be checked."""
    unchecked: str = ""
    """Why nothing could be checked; empty where something was."""
    inherited: tuple[str, ...] = ()
    """The sites that hold, and are not the model's own, since what they were computed from is not."""
    left_out: tuple[LeftOut, ...] = ()
    """What was not imported."""

    @property
    def violated(self) -> list[LocalError]:
        """The signals that are not what the model computes, in dataflow order; the reason of each is the likely one, if one was found."""
        return [] if self.verdicts is None else self.verdicts.violated

    def __repr__(self) -> str:
        """`<Imported dump.npz: 3 signals of 7 tokens, 1 of 2 judged violated>`"""
        trace, verdicts = self.trace, self.verdicts
        said = (
            "none judged" if verdicts is None else f"{len(verdicts.violated)} of {len(verdicts.judged)} judged violated"
        )
        signals, tokens = counted(len(trace), "signal"), counted(len(trace.tokens), "token")
        return f"<Imported {self.dump}: {signals} of {tokens}, {said}>"

    def to_json(self, file: str | None = None) -> dict[str, Any]:
        """The document that `llmtrace import --json` prints; `file` is where the trace was saved."""
        trace = self.trace
        return {
            "schema_version": SCHEMA_VERSION,
            "dump": self.dump,
            "file": file,
            "model": trace.model.source,
            "backend": trace.model.backend,
            "notes": list(trace.model.notes),
            "tokens": [token_document(token) for token in trace.tokens],
            "signals": [
                {
                    "site": signal.site,
                    "axes": list(signal.axes),
                    "shape": list(signal.shape),
                    "dtype": signal.dtype.name,
                    "from": signal.provenance.detail,
                }
                for signal in trace.signals.values()
            ],
            "left_out": [{"name": each.name, "reason": each.reason} for each in self.left_out],
            "verdict": None if self.verdicts is None else self.verdicts.verdict,
            "unchecked": self.unchecked,
            "inherited": list(self.inherited),
            "sites": []
            if self.verdicts is None
            else [verdict_document(each) for each in self.verdicts.sites if each.site in trace.signals],
        }
