"""Saved traces: one safetensors file with a JSON manifest. `docs/format.md` is the format on a page."""

from llmtrace.store.load import load
from llmtrace.store.save import save

__all__ = ["load", "save"]
