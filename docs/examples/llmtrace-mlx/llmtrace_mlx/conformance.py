"""The conformance kit for this backend: it opens checkpoint directories as they are, and what does not pass is said here."""

from __future__ import annotations

from typing import ClassVar

from llmtrace.protocol import Gap
from llmtrace.testing import BackendConformance
from llmtrace_mlx.plugin import MlxBackend

VALUES = ("test_every_equation_holds", "test_signals_are_the_references", "test_one_token_and_a_full_context_run")
WINDOW = Gap("upstream", "mlx-lm reads no sliding_window for this family: every layer sees the whole prompt")
GELU = Gap("upstream", "mlx-lm computes GELU with tanh, whatever hidden_act says")
NAMES = Gap("upstream", "mlx-lm knows the tensors of GPT-2 only as first published, without `transformer.` before them")


class MlxConformance(BackendConformance):
    """MLX, held to every law."""

    backend = MlxBackend
    gaps: ClassVar[dict[str, Gap]] = {
        "gpt2": NAMES,
        **{f"{test}[{family}]": WINDOW for test in VALUES for family in ("gemma2", "mistral")},
        **{f"{test}[gpt_neox]": GELU for test in VALUES},
    }
