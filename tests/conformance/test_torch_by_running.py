"""The PyTorch backend where no row describes a model, held to the kit."""

import pytest

pytest.importorskip("torch")

from llmtrace.testing import BackendConformance
from tests.conformance.rowless import Rowless


class TestTorchByRunning(BackendConformance):
    backend = Rowless
