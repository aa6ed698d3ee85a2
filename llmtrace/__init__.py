"""Look inside transformer language models on the runtime they ship on.

    import llmtrace
    model = llmtrace.open("path/to/model")
    trace = model.trace("The capital of France is", capture=["blocks.*.attn.pattern", "logits"])

Names are loaded when they are first used, so that importing the package stays cheap and imports no runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrace.comparison.comparing import compare
    from llmtrace.comparison.record import Comparison
    from llmtrace.edits import Edit, ablate
    from llmtrace.errors import LLMTraceError
    from llmtrace.hookspecs import hookimpl
    from llmtrace.importing.run import import_dump
    from llmtrace.influence.record import Influence
    from llmtrace.model import Model
    from llmtrace.opening import open
    from llmtrace.schema import SCHEMA_VERSION
    from llmtrace.schema.table import sites
    from llmtrace.selection import Selection, select
    from llmtrace.spec import ModelSpec
    from llmtrace.trace import Signal, Trace, load

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "llmtrace.comparison.record",
    "Edit": "llmtrace.edits",
    "Influence": "llmtrace.influence.record",
    "LLMTraceError": "llmtrace.errors",
    "Model": "llmtrace.model",
    "ModelSpec": "llmtrace.spec",
    "SCHEMA_VERSION": "llmtrace.schema",
    "Selection": "llmtrace.selection",
    "Signal": "llmtrace.trace",
    "Trace": "llmtrace.trace",
    "ablate": "llmtrace.edits",
    "compare": "llmtrace.comparison.comparing",
    "hookimpl": "llmtrace.hookspecs",
    "import_dump": "llmtrace.importing.run",
    "load": "llmtrace.trace",
    "open": "llmtrace.opening",
    "select": "llmtrace.selection",
    "sites": "llmtrace.schema.table",
}
PACKAGES = ("circuits",)
"""Public names that are packages of their own: `llmtrace.circuits.motifs(model)`."""
__all__ = [
    "SCHEMA_VERSION", "Comparison", "Edit", "Influence", "LLMTraceError", "Model", "ModelSpec", "Selection", "Signal", "Trace", "ablate",
    "compare", "hookimpl", "import_dump", "load", "open", "select", "sites",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name in PACKAGES:
        return import_module(f"llmtrace.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'llmtrace' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
