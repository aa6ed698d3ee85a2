"""Models as plain data, what ONNX Runtime makes of their files, and what the equations make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from attrs import frozen

from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec

TOKENS = (5, 17, 3, 38, 31, 31, 9, 2, 20, 33, 7, 12, 1)
"""Thirteen: over the windows and the trained contexts that the tests have."""
LOUD = 1.5
"""How much larger matrices are than what keeps the size of a row: attention that is nearly uniform agrees with one without a window."""


@frozen(eq=False)
class Drawn:
    """A spec with random weights."""

    spec: ModelSpec
    weights: Mapping[str, np.ndarray]


XIELU = {"alpha_p": 0.8, "alpha_n": 0.9, "beta": 0.5, "eps": -0.01}
"""What its numbers are about."""


def drawn(spec: ModelSpec, seed: int = 0) -> Drawn:
    """Always the same for a seed, and a weight's name and shape."""
    weights = {}
    for weight, _ in needed(spec):
        random = np.random.default_rng([seed, *weight.name.encode()])
        noise = random.normal(size=weight.shape)
        if (usual := XIELU.get(weight.name.rpartition(".")[2])) is not None:
            array = usual * (1 + 0.1 * noise)
        elif len(weight.shape) == 1 or ".b_" in weight.name or weight.name.endswith((".w", ".b")):
            array = float(weight.name.endswith(".w")) + 0.3 * noise
        else:
            array = LOUD * noise / np.sqrt(weight.shape[-2] if weight.name != "embed.W_E" else 1)
        weights[weight.name] = array.astype(np.float32)
    if spec.unembed.tied:
        weights["unembed.W_U"] = weights["embed.W_E"].T
    return Drawn(spec, weights)


def session(path: Path, level: str = "ORT_DISABLE_ALL") -> onnxruntime.InferenceSession:
    """An open graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def computed(path: Path, tokens: Sequence[int] = TOKENS, level: str = "ORT_DISABLE_ALL") -> np.ndarray:
    """ONNX Runtime's logits [token vocab]."""
    return batch(path, [list(tokens)], [[1] * len(tokens)], level)[0]


def batch(
    path: Path, ids: Sequence[Sequence[int]], real: Sequence[Sequence[int]], level: str = "ORT_DISABLE_ALL"
) -> np.ndarray:
    """ONNX Runtime's logits [batch token vocab] of prompts with padding."""
    inputs = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(real, np.int64)}
    return np.asarray(session(path, level).run(["logits"], inputs)[0])


def expected(spec: ModelSpec, weights: Mapping[str, np.ndarray], tokens: Sequence[int] = TOKENS) -> np.ndarray:
    """The equations' logits [token vocab], in float64."""
    inputs = {"tokens": np.array(tokens), "positions": np.arange(len(tokens))}
    return dict(Equations(spec, weights, np.float64).run(inputs, {"logits"}))["logits"]


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest logit."""
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
