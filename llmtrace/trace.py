"""What was recorded of one token sequence. **Trace**: the signals, the tokens, and what made them.

There is no batch axis. A trace answers for every site that what it holds suffices for, and says which answers are derived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from attrs import evolve, field, frozen

from llmtrace.edits import Edit
from llmtrace.errors import SignalUnavailableError, UnknownSignalError
from llmtrace.known import Ground, Known
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.evaluate import Equations, Weights
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.selection import Cut, Selection, as_selection, select
from llmtrace.signals import CAPTURED, REPLAYED, Provenance, Signal, Stored
from llmtrace.spec import ModelSpec

if TYPE_CHECKING:
    from llmtrace.schema.verify import LocalError

__all__ = ["CAPTURED", "REPLAYED", "ModelInfo", "Provenance", "Raw", "Signal", "Stored", "Token", "Trace", "load"]

Raw: TypeAlias = bytes
"""`bytes` under a name that a field called `bytes` does not hide when annotations are resolved."""


@frozen
class Token:
    """One token of a prompt."""

    id: int
    """Its row in the vocabulary."""
    text: str = ""
    """As the tokenizer decodes it alone; with U+FFFD where it is not valid UTF-8 alone."""
    bytes: Raw | None = None
    """Its bytes, where `text` cannot say them."""


@frozen
class ModelInfo:
    """Which model, on which runtime, with which settings: enough to open it again."""

    source: str
    """Path or name as it was opened."""
    backend: str
    """The name that `--backend` takes."""
    runtime: str
    """The runtime's name: `PyTorch`, `ONNX Runtime`, `llama.cpp`, `NumPy`."""
    versions: Mapping[str, str] = field(factory=dict)
    """Distribution to version, of what took part."""
    fingerprint: str = ""
    """Digest of the model file; how it is made, the backend says."""
    weights: str = ""
    """Storage type of the weights, and whether they were dequantised."""
    device: str = "cpu"
    """Where it computed."""
    preset: Literal["exact", "shipped"] = "shipped"
    """The settings that the options stood above."""
    options: Mapping[str, str] = field(factory=dict)
    """Every option of the backend as it was opened, as text: what `llmtrace.open(…, options=)` takes to open it so again."""
    settings: Mapping[str, str] = field(factory=dict)
    """What changes numbers: attention kernel, type, threads, graph optimisation."""
    notes: tuple[str, ...] = ()
    """What a reader should know: weights with NaN, a dequantised file, a missing tokenizer."""
    capture_tolerance: float = 0.0
    """How far logits may move when signals are asked for; 0 is bit for bit."""


@frozen(eq=False, slots=False)
class Trace:
    """What was recorded of one token sequence; a mapping from sites to signals that also derives.

    `trace["blocks.3.attn.pattern"]` is the recorded signal, or the one that the equations derive from what was recorded.
    """

    model: ModelInfo
    """Which model, on which runtime, with which settings."""
    spec: ModelSpec = field(repr=False)
    """What the model is."""
    tokens: tuple[Token, ...]
    """The prompt, with what the tokenizer added."""
    signals: Mapping[str, Signal] = field(repr=False)
    """What was recorded, by site, in dataflow order."""
    selection: Selection = field(factory=lambda: select("**"), repr=False)
    """What was asked for."""
    weights: Weights = field(factory=dict, repr=False)
    """The model's weights, where it is open: they are not saved."""
    given: tuple[str, ...] = ()
    """Sites that no equation of the model gives: their values were put there (`replay=`) or changed (`edits=`)."""
    edits: tuple[Edit, ...] = ()
    """What was changed in flight."""
    positions: tuple[int, ...] = field(repr=False)
    """The tokens' positions; 0, 1, 2 … if not said."""
    schema_version: int = SCHEMA_VERSION
    """Of the sites' meanings."""

    @positions.default
    def _from_zero(self) -> tuple[int, ...]:
        return tuple(range(len(self.tokens)))

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids."""
        return tuple(token.id for token in self.tokens)

    @cached_property
    def equations(self) -> Equations:
        """The model's equations, with its weights where they are at hand."""
        return Equations(self.spec, self.weights, given=frozenset(self.given))

    @cached_property
    def _ground(self) -> Ground:
        inputs = {"tokens": np.asarray(self.ids), "positions": np.asarray(self.positions)}
        return Ground(self.equations, inputs, self.signals)

    @property
    def known(self) -> Mapping[str, Array]:
        """The inputs, and every signal recorded whole; those in a file are read when they are used."""
        return self._ground.whole

    def __getitem__(self, site: str) -> Signal:
        """The recorded signal, or the derived one: whole, or at the tokens that what it rests on was recorded at.

        Raises `UnknownSignalError` for a name that is no site of this model, `SignalUnavailableError` where what was recorded
        does not suffice.
        """
        name = self._name(site)
        if name in self.signals:
            return self.signals[name]
        way = self._ground.way(name)
        step, array = self.equations.steps[name], self._ground.evaluate(name, way)
        array.flags.writeable = False
        inputs = tuple(known for known in way.span.known if known != "positions")
        precision = Precision("int64" if step.equation.integer else "float64", "float64")
        return Signal(name, step.axes, array, Provenance("derived", inputs=inputs), precision, way.cut)

    def __contains__(self, site: object) -> bool:
        """Whether `trace[site]` would give a signal."""
        try:
            self.cut(site)  # type: ignore[arg-type]
        except (SignalUnavailableError, UnknownSignalError):
            return False
        return True

    def cut(self, site: str) -> Cut | None:
        """What of the whole signal `trace[site]` is; None: all of it. Nothing is computed to know it. Raises as `trace[site]`."""
        name = self._name(site)
        return self.signals[name].cut if name in self.signals else self._ground.way(name).cut

    def _name(self, site: str) -> str:
        """The site that a name means: ours, one of TransformerLens's, or one that counts blocks from the end."""
        if not isinstance(site, str):
            raise UnknownSignalError(f"A site is a name, such as 'blocks.0.attn.pattern', and not {site!r:.80}.")
        if site in self.signals or not ("hook_" in site or "blocks.-" in site):
            return site
        found = list(as_selection(site).resolve(self.equations.steps))
        if len(found) > 1:
            raise UnknownSignalError(f"{site!r} names {len(found)} sites, and a trace answers for one at a time.")
        return found[0]

    def __iter__(self) -> Iterator[str]:
        """The recorded sites, in dataflow order."""
        return iter(self.signals)

    def __len__(self) -> int:
        """How many signals were recorded."""
        return len(self.signals)

    @property
    def changes(self) -> Mapping[str, tuple[str, ...]]:
        """What the model did not compute, in words: its edits under `edited`, replayed sites under `replayed`; empty of a plain run."""
        changed = {
            site for edit in self.edits for site in as_selection(edit.pick.pattern).resolve(self.equations.steps)
        }
        replayed = tuple(site for site in self.given if site not in changed)
        found = {"edited": tuple(map(str, self.edits)), "replayed": replayed}
        return {kind: what for kind, what in found.items() if what}

    @property
    def bytes(self) -> int:
        """Bytes of all recorded signals."""
        return sum(signal.bytes for signal in self.signals.values())

    def __repr__(self) -> str:
        """Which model, how many tokens and signals, their bytes, and what was changed or replayed; in one line."""
        held = f"{len(self.tokens)} tokens, {len(self)} signals, {self.bytes:,} bytes"
        put = "".join(f"; {kind}: {', '.join(what)}" for kind, what in self.changes.items())
        return f"<Trace of {self.model.source!r} ({self.model.runtime}): {held}{put}>"

    def _repr_html_(self) -> str:
        """The same for notebooks, and a table of what was recorded."""
        from llmtrace.view.notebook import trace_fragment

        return trace_fragment(self)

    def with_weights(self, weights: Weights) -> Trace:
        """The same trace, with a model's weights at hand for deriving and verifying."""
        return evolve(self, weights=weights)

    def verify(self) -> list[LocalError]:
        """The local error of every signal captured whole, in dataflow order; derived ones are not judged.

        A signal that was computed by an equation agrees with it by construction, so only captured and converted ones count, and of
        these not what was put there.
        """
        from llmtrace.schema.verify import verify

        judged = {
            site: signal
            for site, signal in self.signals.items()
            if signal.provenance.kind != "derived" and signal.whole
        }
        inputs = {"tokens": self.known["tokens"], "positions": self.known["positions"]}
        precision = {site: signal.precision for site, signal in judged.items()}
        return list(verify(self.equations, Known(inputs, judged), precision))

    def save(self, path: str | Path) -> None:
        """Write the trace to one file, atomically: a failure leaves an older file as it was. Raises `TraceFileError`."""
        from llmtrace.store import save

        save(self, path)


def load(path: str | Path) -> Trace:
    """Open a saved trace. Signals are memory-mapped, and their digests checked when they are first read.

    Raises `TraceFileError` for a truncated or altered file, `SchemaVersionError` for one of another schema.
    """
    from llmtrace.store import load as read

    return read(path)
