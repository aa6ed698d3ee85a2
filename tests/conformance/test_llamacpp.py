"""The llama.cpp backend, held to the kit."""

import pytest

pytest.importorskip("llmtrace_llamacpp")

from llmtrace_llamacpp.conformance import LlamaCppConformance


class TestLlamaCpp(LlamaCppConformance):
    pass
