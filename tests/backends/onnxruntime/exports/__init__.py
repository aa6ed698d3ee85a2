"""Tiny ONNX models from every exporter that people use: what the tests of this backend open.

**Checkpoint**: a tiny seeded model in transformers' layout, with a tokenizer of as many words as it has tokens. **Exporter**: what makes
a `model.onnx` of one. **Rewriter**: what makes another graph of an exported one, as ONNX Runtime's optimiser does; written
`exporter+rewriter`. **Cell**: one exporter's (and rewriter's) model of one architecture. A cell is made once: `export` gives the
path of what lies there.

`python -m tests.backends.onnxruntime.exports EXPORTER ARCHITECTURE DIRECTORY` makes one.
"""

from __future__ import annotations

from tests.backends.onnxruntime.exports.architectures import ARCHITECTURES, checkpoint
from tests.backends.onnxruntime.exports.cells import EXPORTERS, REWRITERS, export
from tests.backends.onnxruntime.exports.exporter import Exporter, ExportError, NotInstalledError

__all__ = [
    "ARCHITECTURES",
    "EXPORTERS",
    "REWRITERS",
    "ExportError",
    "Exporter",
    "NotInstalledError",
    "checkpoint",
    "export",
]
