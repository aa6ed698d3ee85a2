"""The conformance kit for this backend: its models are converted to GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from llmtrace.protocol import Gap
from llmtrace.testing import BackendConformance, TinyModel
from llmtrace_llamacpp.plugin import LlamaCppBackend
from llmtrace_llamacpp.writing import write_gguf

WINDOW = Gap(
    "upstream",
    "llama.cpp knows Mistral as a llama, and a llama has no sliding window: every layer sees the whole prompt",
)
FOLLOW = (
    "test_signals_are_the_references",
    "test_one_token_and_a_full_context_run",
    "test_what_follows_an_edit_follows_from_it",
    "test_edits_of_one_run_act_together_and_are_gone_after_it",
)
"""The tests that compare with a model that has one. Its own equations, of the model that llama.cpp computes, hold."""


class LlamaCppConformance(BackendConformance):
    """llama.cpp, held to every law."""

    backend = LlamaCppBackend
    gaps: ClassVar[dict[str, Gap]] = {f"{test}[mistral]": WINDOW for test in FOLLOW}

    def source(self, tiny: TinyModel, directory: Path) -> Path:
        """The model as a GGUF file, in float32."""
        return write_gguf(tiny, directory / f"{tiny.family}.gguf")
