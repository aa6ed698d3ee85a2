"""The embedded model, opened with any backend that is installed."""

import pytest

import llmtrace
from llmtrace.data import DEMO_MODEL


@pytest.fixture
def small_model():
    """Opens the embedded model with a backend by name; skips a backend that does not open it."""

    def open_with(name):
        try:
            return llmtrace.open(DEMO_MODEL, backend=name)
        except llmtrace.LLMTraceError as error:
            pytest.skip(f"{name} does not open the embedded model: {error}")

    return open_with
