"""The ONNX Runtime backend, held to the kit."""

import pytest

pytest.importorskip("llmtrace_onnxruntime")

from llmtrace_onnxruntime.conformance import OnnxRuntimeConformance


class TestOnnxRuntime(OnnxRuntimeConformance):
    pass
