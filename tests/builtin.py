"""The hand-built model, as each backend opens it."""

from __future__ import annotations

from pathlib import Path

from llmtrace.data import embedded
from llmtrace.families.checkpoint import open_checkpoint


def induction(backend: str, directory: Path) -> Path:
    """A checkpoint directory, or a file made of it in `directory`."""
    if backend != "llamacpp":
        return embedded("induction")
    from llmtrace_llamacpp.writing import write_gguf

    return write_gguf(open_checkpoint(embedded("induction")), directory / "induction.gguf")
