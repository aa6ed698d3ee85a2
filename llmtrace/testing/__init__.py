"""For who writes a plugin, and for LLMTrace's own tests: the conformance kit for backends, checks for influence methods and viewers, a comparison
for the tests of whoever converts models, tiny seeded models, and the hand-built one whose answers are known.

`BackendConformance` needs pytest (`pip install "llmtrace-core[testing]"`), all else does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmtrace.testing.model import TinyModel, tiny_model

if TYPE_CHECKING:
    from llmtrace.testing.conformance import BackendConformance
    from llmtrace.testing.plugins import check_method, check_viewer
    from llmtrace.testing.same_model import assert_same_model

__all__ = ["BackendConformance", "TinyModel", "assert_same_model", "check_method", "check_viewer", "tiny_model"]


def __getattr__(name: str) -> Any:
    """Import the kit, and with it pytest, when it is first asked for; and the checks, and the comparison."""
    if name in ("check_method", "check_viewer"):
        from llmtrace.testing import plugins

        return getattr(plugins, name)
    if name == "assert_same_model":
        from llmtrace.testing.same_model import assert_same_model

        return assert_same_model
    if name != "BackendConformance":
        raise AttributeError(f"module 'llmtrace.testing' has no attribute {name!r}")
    from llmtrace.testing.conformance import BackendConformance

    return BackendConformance
