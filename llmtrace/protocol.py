"""What a backend is. **Backend**: the plugin that opens models of one runtime; **session**: one open model; **observer**: whoever
receives signals while the model runs.

Capability is a protocol: a session that has `weights` supports weights. A backend hands over only what its runtime computed; what
can be derived from that, the core derives, the same way for every backend.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from attrs import field, frozen, validators

from llmtrace.edits import Change
from llmtrace.schema.arithmetic import Arithmetic
from llmtrace.schema.precision import BYTES, Precision
from llmtrace.schema.sites import Array
from llmtrace.selection import Cut
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import CAPTURED, ModelInfo, Provenance

Preset = Literal["exact", "shipped"]
"""Settings that the equations hold tightest on, or the runtime's own defaults."""
Fit = Literal["native", "converting", "reference"]
"""How near a backend is to a source: its own format, one that it converts, or a slow last resort."""
GapKind = Literal["ours", "upstream", "impossible"]
"""Whose a gap is: not built yet, the runtime does not hand it out, or it cannot be."""


@frozen
class Offer:
    """How a session hands out one site."""

    provenance: Provenance = CAPTURED
    """`captured`, or `converted` with its recipe; never `derived`: that is the core's work."""
    precision: Precision = Precision()
    """What rounding the values have been through."""
    handed: str = field(default="", validator=validators.in_({"", *BYTES}))
    """Type of the arrays that are handed over, where it is not the one in which the runtime held them (8-bit blocks as float32)."""

    @property
    def dtype(self) -> str:
        """Type of the arrays that are handed over."""
        return self.handed or self.precision.storage


@frozen
class Gap:
    """Why a session cannot hand out one site. The core may still derive it."""

    kind: GapKind
    """Whose it is."""
    reason: str
    """In words that end a sentence about the site."""


@frozen
class Request:
    """One run."""

    tokens: tuple[int, ...]
    """Ids, without anything added."""
    cuts: Mapping[str, Cut]
    """The sites to hand over, each cut as said; all of them are offered by the session."""
    replay: Mapping[str, Array] = field(factory=dict)
    """Signals to take as given instead of computing them, whole; only sessions that `SupportsReplay` get any."""
    edits: Mapping[str, Sequence[Change]] = field(factory=dict)
    """Changes to make in flight, by site, in order; all downstream, and what is handed over of the site itself, is what they leave. Only
    sessions that `SupportsEdits` get any, and of sites that are `editable`."""


class Observer(Protocol):
    """Receives each requested signal once, in layer order; within a layer in any order."""

    def signal(self, site: str, array: Array) -> None:
        """One signal, cut as requested, axes as the schema's. The array is read-only and valid during the call only: copy to keep."""

    def layer_done(self, layer: int) -> None:
        """All requested signals of block `layer` have been handed over. Called for every block, in order."""


class TraceSession(Protocol):
    """One open model. Use from one thread at a time; several sessions may be open at once and know nothing of each other."""

    info: ModelInfo
    spec: ModelSpec
    tokenizer: Tokenizer | None
    offers: Mapping[str, Offer]
    """Every site that the runtime hands out here."""
    gaps: Mapping[str, Gap]
    """Sites of the spec that it does not, with the reason."""

    def run(self, request: Request, observer: Observer) -> None:
        """One forward pass over the tokens. Signals of `embed` and `pos_embed` come before block 0, those of the end after the last.

        The model is left exactly as it was, also after an exception; an exception of the observer stops the run and is passed on.
        """

    def close(self) -> None:
        """Release the model. Closing twice is allowed."""


@runtime_checkable
class SupportsWeights(Protocol):
    """A session whose weights can be read."""

    weights: Mapping[str, Array]
    """By schema name and in the schema's shapes; *as in the file*, read on access."""
    stored: Mapping[str, str]
    """Weight to the type that it is stored in: `float32`, `bfloat16`, `Q4_1`."""


@runtime_checkable
class SupportsNames(Protocol):
    """A session that tells what its runtime calls the sites, for tools that show the runtime's own graph."""

    names: Mapping[str, str]
    """Site to the name of the value that holds it."""


@runtime_checkable
class SupportsReplay(Protocol):
    """A session that can take signals as given: a capture of an opaque branch from another runtime."""

    replayable: Collection[str]


@runtime_checkable
class SupportsEdits(Protocol):
    """A session that can change signals while the model runs."""

    editable: Collection[str]
    """The sites where every reader sees the change."""


@runtime_checkable
class SupportsKeeping(Protocol):
    """A session some of whose arrays stay as they are, so that who records them need not copy."""

    lasting: Collection[str]
    """Sites whose arrays in a run without edits are valid for good: the runtime never writes there again, nor does closing the model. Only
    for what is a large part of the memory that it lies in: that is kept with it.
    """


@runtime_checkable
class SupportsArithmetic(Protocol):
    """A session that lends its runtime's operators to what is derived while it runs: its threads are awake, NumPy's would wait for theirs."""

    arithmetic: Arithmetic


@runtime_checkable
class SupportsMany(Protocol):
    """A session that runs several prompts at once. Padding is its own business and must not leak."""

    def run_many(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        """As `run` for each pair, layer by layer."""


@runtime_checkable
class SupportsReplacement(Protocol):
    """A session that can compute with other weights for a while."""

    replaceable: Collection[str]
    """The weights that can be replaced, by schema name. Looking at it may read them all; opening a model does not."""
    irreplaceable: Mapping[str, str]
    """The others that it has, and why each cannot be, in words that end a sentence about it."""
    tied: Collection[Collection[str]]
    """Groups of weights that lie in the same memory, wholly or in part: they are replaced together or not at all."""

    def replaced(self, weights: Mapping[str, Array]) -> AbstractContextManager[None]:
        """While it is entered, every run computes with these in place of its own, and `weights` is another mapping, which has them as the model
        does: in its own type. The mapping that was there before goes on to have the model's own; traces hold it.

        Afterwards, also after an exception, the model is bit for bit as before. The core hands over names that are `replaceable`, tied ones
        together, finite numbers in the schema's shapes. Raises, before anything is touched, `OptionError` for tied weights that do not fit each
        other. Entering it within another is allowed.
        """


class TraceBackend(Protocol):
    """A plugin for one runtime. Its class is returned by the hook `llmtrace_backends`; its module must not import the runtime."""

    name: ClassVar[str]
    """What `--backend` and the prefix `name:model` call it."""
    runtime: ClassVar[str]
    """The runtime's own name, for people."""
    distributions: ClassVar[tuple[str, ...]]
    """Distributions that must be installed for it to work: they are looked for, not imported, to tell whether it is broken."""
    options: ClassVar[type[Any]]
    """A frozen attrs class of the settings that it takes, each with a default and a docstring; fields of type `str`, `int`,
    `float`, `bool`, or any of these or None."""
    capabilities: ClassVar[tuple[str, ...]]
    """What its sessions support beyond `run`, for who chooses a backend before a model is open: `weights`, `replay`, `many`, `edits`,
    `replacement`."""

    @staticmethod
    def probe(source: str, path: Path | None) -> Fit | None:
        """Whether it opens this source, told from names and first bytes; `path` is None where no such file or directory exists.

        Must be quick and must not import the runtime.
        """

    @staticmethod
    def preset(preset: Preset) -> Any:
        """An instance of `options` with the settings of a preset."""

    @staticmethod
    def open(source: str, options: Any) -> TraceSession:
        """Open a model. Raises `ModelOpenError` and its kin, with the culprit and the fix."""
