"""How more could be seen of a candidate: by which settings of its own backend, or by none."""

from __future__ import annotations

from llmtrace.errors import LLMTraceError
from llmtrace.plugins import plugins
from llmtrace.settings import as_text, settings
from llmtrace.trace import ModelInfo


def advice(info: ModelInfo, *, traced: bool = False) -> str:
    """A sentence: the preset `exact` where it changes a setting, else that no setting helps. `traced`: it is a saved trace's."""
    changes = _changes(info)
    if changes is None:
        return ""
    if not changes:
        return f"No setting of the backend {info.backend} shows more; a file in a wider type may."
    listed = ", ".join(f"{name}={value}" for name, value in changes.items())
    if info.preset == "exact":
        return f"Compare with {' '.join(f'-o {name}={value}' for name, value in changes.items())} to see more."
    return f"{'Record' if traced else 'Compare'} with --preset exact ({listed}) to see more."


def _changes(info: ModelInfo) -> dict[str, str] | None:
    """The options that the preset `exact` has otherwise; None where the backend cannot be asked."""
    entry = plugins().backends.get(info.backend)
    if entry is None or entry.backend is None:
        return None
    try:
        exact = as_text(settings(entry.backend, "exact", {}))
    except LLMTraceError:  # its author's fault, and said where it is opened
        return None
    return {name: value for name, value in exact.items() if info.options.get(name, value) != value}
