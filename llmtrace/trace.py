"""What was recorded of one token sequence. **Signal**: the array at one site; **trace**: the signals, the tokens, and what made them.

There is no batch axis. A trace answers for every site that what it holds suffices for, and says which answers are derived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from attrs import evolve, field, frozen

from llmtrace.errors import SignalUnavailableError, UnknownSignalError
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.evaluate import Equations, Weights
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import INPUTS, Array
from llmtrace.selection import Cut, Selection, as_selection, select
from llmtrace.spec import ModelSpec

if TYPE_CHECKING:
    from llmtrace.schema.verify import LocalError

Raw: TypeAlias = bytes
"""`bytes` under a name that a field called `bytes` does not hide when annotations are resolved."""


@frozen
class Provenance:
    """Where a signal's values come from."""

    kind: Literal["captured", "converted", "derived"]
    """As the runtime had it · captured, then re-expressed exactly · computed by an equation."""
    detail: str = ""
    """The recipe of a conversion."""
    inputs: tuple[str, ...] = ()
    """The captured signals that a derived one rests on."""

    def __str__(self) -> str:
        """`derived(blocks.0.attn.rot_q, blocks.0.attn.rot_k)`"""
        inside = ", ".join(self.inputs) or self.detail
        return f"{self.kind}({inside})" if inside else self.kind


CAPTURED = Provenance("captured")
REPLAYED = Provenance("converted", "taken as given, not computed")


class Stored(Protocol):
    """An array that is still in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file says."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the file says."""

    def read(self) -> Array:
        """The array, read-only; its digest is checked the first time. Raises `TraceFileError`."""


@frozen(eq=False)
class Signal:
    """The array at one site, with what one needs to know about it."""

    site: str
    """Its name."""
    axes: tuple[str, ...]
    """Names of the array's axes."""
    _array: Array | Stored = field(repr=False)
    """At hand, or in a file from which it is read when `array` is first asked for."""
    provenance: Provenance = CAPTURED
    """Where the values come from."""
    precision: Precision = Precision()
    """What rounding they have been through."""
    cut: Cut | None = None
    """What of the whole signal this is; None: all of it."""

    @property
    def array(self) -> Array:
        """Read-only; axes as named, cut as selected."""
        return self._array if isinstance(self._array, np.ndarray) else self._array.read()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes. Nothing is read to know it."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements. Nothing is read to know it."""
        return self._array.dtype

    @property
    def whole(self) -> bool:
        """Whether nothing was cut away."""
        return self.cut is None or self.cut.whole

    @property
    def bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        """Everything but the numbers."""
        axes = " ".join(f"{axis}={size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"<Signal {self.site} [{axes}] {self.dtype} {self.provenance}>"


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
    """Sites that the model did not compute: their values were put there (`replay=`)."""
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
        return Equations(self.spec, self.weights)

    @cached_property
    def known(self) -> Mapping[str, Array]:
        """What equations may rest on: the inputs, and every signal recorded whole; those in a file are read when they are used."""
        inputs = {"tokens": np.asarray(self.ids), "positions": np.asarray(self.positions)}
        return _Known(inputs, {site: signal for site, signal in self.signals.items() if signal.whole})

    def __getitem__(self, site: str) -> Signal:
        """The recorded signal, or the derived one.

        Raises `UnknownSignalError` for a name that is no site of this model, `SignalUnavailableError` where what was recorded
        does not suffice.
        """
        name = self._name(site)
        if name in self.signals:
            return self.signals[name]
        step = self.equations.step(name)
        span = self.equations.derivable(name, set(self.known).difference(INPUTS))
        array = self.equations.evaluate(name, self.equations.looking(self.known))
        array.flags.writeable = False
        inputs = tuple(known for known in span.known if known != "positions")
        return Signal(name, step.axes, array, Provenance("derived", inputs=inputs), Precision("float64", "float64"))

    def __contains__(self, site: object) -> bool:
        """Whether `trace[site]` would give a signal."""
        if site in self.signals:
            return True
        try:
            name = self._name(str(site))
            return name in self.signals or bool(self.equations.derivable(name, set(self.known)))
        except (SignalUnavailableError, UnknownSignalError):
            return False

    def _name(self, site: str) -> str:
        """The site that a name means: ours, one of TransformerLens's, or one that counts blocks from the end."""
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
    def bytes(self) -> int:
        """Bytes of all recorded signals."""
        return sum(signal.bytes for signal in self.signals.values())

    def with_weights(self, weights: Weights) -> Trace:
        """The same trace, with a model's weights at hand for deriving and verifying."""
        return evolve(self, weights=weights)

    def verify(self) -> list[LocalError]:
        """The local error of every captured signal, in dataflow order; derived ones are not judged.

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
        return list(verify(self.equations, _Known(inputs, judged), precision, given=self.given))

    def save(self, path: str | Path) -> None:
        """Write the trace to one file, atomically: a failure leaves an older file as it was. Raises `TraceFileError`."""
        from llmtrace.store import save

        save(self, path)


class _Known(Mapping[str, Array]):
    """Inputs and signals by name; a signal in a file is read when it is looked up."""

    def __init__(self, inputs: Mapping[str, Array], signals: Mapping[str, Signal]) -> None:
        self._inputs = inputs
        self._signals = signals

    def __getitem__(self, name: str) -> Array:
        return self._inputs[name] if name in self._inputs else self._signals[name].array

    def __contains__(self, name: object) -> bool:
        return name in self._inputs or name in self._signals

    def __iter__(self) -> Iterator[str]:
        yield from self._inputs
        yield from self._signals

    def __len__(self) -> int:
        return len(self._inputs) + len(self._signals)


def load(path: str | Path) -> Trace:
    """Open a saved trace. Signals are memory-mapped, and their digests checked when they are first read.

    Raises `TraceFileError` for a truncated or altered file, `SchemaVersionError` for one of another schema.
    """
    from llmtrace.store import load as read

    return read(path)
