"""For who writes a backend, and for LLMTrace's own tests: the conformance kit, tiny seeded models, and the hand-built one whose answers are
known.

`BackendConformance` needs pytest (`pip install "llmtrace-core[testing]"`), the models do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmtrace.testing.model import TinyModel, tiny_model

if TYPE_CHECKING:
    from llmtrace.testing.conformance import BackendConformance

__all__ = ["BackendConformance", "TinyModel", "tiny_model"]


def __getattr__(name: str) -> Any:
    """Import the kit, and with it pytest, when it is first asked for."""
    if name != "BackendConformance":
        raise AttributeError(f"module 'llmtrace.testing' has no attribute {name!r}")
    from llmtrace.testing.conformance import BackendConformance

    return BackendConformance
