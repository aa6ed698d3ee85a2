"""The PyTorch backend, held to the kit."""

import pytest

pytest.importorskip("torch")

from llmtrace.testing import BackendConformance
from llmtrace_torch.plugin import TorchBackend


class TestTorch(BackendConformance):
    backend = TorchBackend
