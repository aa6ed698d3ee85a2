"""Long prompts: what is taken to look at a few rows of every pattern, by how many layers there are. It prints one line of JSON.

`python -m tests.benchmarks.performance.long --layers N --tokens N`
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

import llmtrace
from llmtrace.model import Model
from llmtrace.schema.evaluate import Signals
from llmtrace.selection import select
from llmtrace.testing.tiny import write_tiny
from tests.benchmarks.performance.memory import most
from tests.benchmarks.performance.opened import bare

HEADS, ROWS = 4, (-1, -2, 1000, 5)
SIZES = {
    "hidden_size": 64, "num_attention_heads": HEADS, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
    "vocab_size": 97, "max_position_embeddings": 16384,
}  # fmt: skip
PATTERNS = "blocks.*.attn.pattern"


class Looked:
    """A fold that adds up, over layers, what the chosen rows looked at."""

    def __init__(self, layers: int) -> None:
        self.sites: Collection[str] = [f"blocks.{layer}.attn.pattern" for layer in range(layers)]
        self.total = np.zeros(())

    def layer(self, layer: int, signals: Signals) -> None:
        """Add the mean over heads."""
        for array in signals.values():
            self.total = self.total + array.mean(0)

    def finish(self, ends: Signals) -> None:
        """Nothing is left."""


def _fold(model: Model, ids: list[int]) -> Callable[[], object]:
    return lambda: model.fold(ids, [Looked(len(model.spec.blocks))], tokens=ROWS)


RUNS: dict[str, Callable[[Model, list[int]], Callable[[], object]]] = {
    "bare": bare,
    f"patterns, {len(ROWS)} rows": lambda model, ids: lambda: model.trace(ids, capture=select(PATTERNS, tokens=ROWS)),
    f"patterns, {len(ROWS)} rows of one head": lambda model, ids: (
        lambda: model.trace(ids, capture=select(PATTERNS, tokens=ROWS, heads=[1]))
    ),
    "everything, last token": lambda model, ids: lambda: model.trace(ids, capture=select("**", tokens=[-1])),
    f"a fold over patterns, {len(ROWS)} rows": _fold,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        write_tiny("llama", Path(directory), num_hidden_layers=asked.layers, **SIZES)
        with llmtrace.open(Path(directory), backend="torch", options={"threads": asked.threads}) as model:
            ids = np.random.default_rng(0).integers(0, SIZES["vocab_size"], asked.tokens).tolist()
            model.trace(ids[:32])  # what is loaded at the first run is no run's memory
            print(json.dumps({name: most(run(model, ids)) for name, run in RUNS.items()}))


if __name__ == "__main__":
    main()
