"""A cell's own logits, by ONNX Runtime alone: what the graph computes, before anything of ours looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmtrace.schema.sites import Array

TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


def logits(model: Path, tokens: Sequence[int], kv_heads: int = 2, d_head: int = 16) -> Array:
    """[token vocab], or [1 vocab] where the graph keeps the last token only. A past that it wants is empty."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        kind = TYPES[value.type]
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((1, kv_heads, 0, d_head), kind)
        elif value.name == "attention_mask":
            feeds[value.name] = np.ones((1, len(tokens)), kind)
        elif value.name == "position_ids":
            feeds[value.name] = np.arange(len(tokens), dtype=kind)[None]
        else:
            feeds[value.name] = np.array([tokens], kind)
    return np.asarray(session.run(["logits"], feeds)[0])[0]
