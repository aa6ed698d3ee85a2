"""A model as an ONNX file, made from its spec and weights by `onnx` alone: for tests, a user's too.

**Style**: whose operators a graph is made of; **kind**: what its weights are stored in. Values and weights have neutral names: whoever reads
the file has to find out what they are.
"""

from __future__ import annotations

from llmtrace_onnxruntime.writing.file import write_onnx
from llmtrace_onnxruntime.writing.stored import KINDS, Model, stored
from llmtrace_onnxruntime.writing.style import STYLES

__all__ = ["KINDS", "STYLES", "Model", "stored", "write_onnx"]
