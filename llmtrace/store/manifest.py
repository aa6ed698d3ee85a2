"""What a saved trace says about itself. **Manifest**: everything but the numbers; **entry**: what it says of one signal."""

from __future__ import annotations

from attrs import frozen

from llmtrace.edits import Op
from llmtrace.schema.precision import Precision
from llmtrace.selection import Cut, Pick, Selection
from llmtrace.spec import ModelSpec
from llmtrace.trace import ModelInfo, Provenance, Token

FORMAT_VERSION = 1
"""Raised when a reader of the older format would misread a file."""
MANIFEST_KEY = "llmtrace"
"""Where the manifest stands in the header's `__metadata__`."""
DIGEST_KEY = "llmtrace_sha256"
"""Where its digest stands."""
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "uint8": "U8",
}  # fmt: skip
"""Names of element types, ours to safetensors's: every type that a signal may have."""


@frozen
class Entry:
    """One signal, without its numbers."""

    site: str
    """Also the tensor's name in the file."""
    axes: tuple[str, ...]
    """Their names."""
    shape: tuple[int, ...]
    """Their lengths."""
    dtype: str
    """Our name of the element type."""
    provenance: Provenance
    """Where the values come from."""
    precision: Precision
    """What rounding they have been through."""
    cut: Cut | None
    """What of the whole signal this is; null: all of it."""
    sha256: str
    """Of the signal's bytes as they stand in the file."""


def tensor_of(edit: int) -> str:
    """The name of the tensor that holds the operand of the n-th edit.

    >>> tensor_of(0)
    'edits.0'
    """
    return f"edits.{edit}"


@frozen
class EditEntry:
    """One edit, without its numbers: those of the n-th stand in the file as the tensor `edits.n`."""

    pick: Pick
    """Which sites, and what of them."""
    op: Op
    """What was done to them."""
    shape: tuple[int, ...] | None
    """Of the operand; null: it has none."""
    sha256: str
    """Of the operand's bytes; empty where it has none."""


@frozen
class Manifest:
    """A trace, without its numbers."""

    format_version: int
    """Of the file's format."""
    schema_version: int
    """Of the sites' meanings."""
    llmtrace: str
    """Version of LLMTrace that wrote the file."""
    model: ModelInfo
    """Which model, on which runtime, with which settings."""
    spec: ModelSpec
    """What the model is."""
    tokens: tuple[Token, ...]
    """The prompt."""
    positions: tuple[int, ...]
    """The tokens' positions."""
    selection: Selection
    """What was asked for."""
    given: tuple[str, ...]
    """Sites that no equation of the model gives: their values were put there or changed."""
    edits: tuple[EditEntry, ...]
    """What was changed in flight."""
    signals: tuple[Entry, ...]
    """In dataflow order."""
