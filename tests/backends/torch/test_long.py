"""Long prompts: of patterns, what is asked for is made, and the memory is that of one layer."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import llmtrace
from llmtrace.model import Model
from llmtrace.selection import select
from llmtrace.testing.tiny import write_tiny

LONG, ROWS = 1500, (-1, 700, 3)
PATTERNS = "blocks.*.attn.pattern"


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> dict[int, Model]:
    """A llama by its number of layers."""
    found = {}
    for layers in (2, 6):
        directory = tmp_path_factory.mktemp(f"deep{layers}")
        write_tiny("llama", directory, num_hidden_layers=layers, max_position_embeddings=2048)
        found[layers] = llmtrace.open(directory, backend="torch")
    yield found
    for model in found.values():
        model.close()


@pytest.fixture(scope="module")
def ids() -> list[int]:
    return np.random.default_rng(0).integers(0, 97, LONG).tolist()


class Looked:
    """A fold that adds up what each layer's rows looked at."""

    def __init__(self, layers: int) -> None:
        self.sites = tuple(f"blocks.{layer}.attn.pattern" for layer in range(layers))
        self.seen: list[np.ndarray] = []

    def layer(self, layer, signals) -> None:
        self.seen.append(signals[self.sites[layer]].mean(0))

    def finish(self, ends) -> None:
        pass


def most(run) -> int:
    """Bytes of arrays that were alive at once, PyTorch's own left out."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def eager(model: Model, ids: list[int]) -> list[np.ndarray]:
    """Patterns as transformers' eager attention puts them out."""
    inner = model.session.model
    own = inner.config._attn_implementation
    inner.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return [each[0].numpy() for each in inner(torch.tensor([ids]), output_attentions=True).attentions]
    finally:
        inner.set_attn_implementation(own)


def test_rows_of_patterns_are_those_that_the_model_computes(deep, ids):
    model = deep[2]
    fold = Looked(2)
    model.fold(ids, [fold], tokens=ROWS)
    trace = model.trace(ids, capture=select(PATTERNS, tokens=ROWS, heads=[2, 1]))
    for layer, whole in enumerate(eager(model, ids)):
        rows = whole[:, list(ROWS)]
        np.testing.assert_allclose(trace[f"blocks.{layer}.attn.pattern"].array, rows[[2, 1]], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(fold.seen[layer], rows.mean(0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("way", ["trace", "fold"])
def test_rows_of_patterns_need_no_whole_pattern_and_no_more_for_more_layers(deep, ids, way):
    def run(layers: int) -> None:
        if way == "trace":
            deep[layers].trace(ids, capture=select(PATTERNS, tokens=ROWS))
        else:
            deep[layers].fold(ids, [Looked(layers)], tokens=ROWS)

    few, many = (most(lambda layers=layers: run(layers)) for layers in (2, 6))
    assert many < LONG * LONG  # bytes: a quarter of one head's pattern
    kept = 4 * 4 * len(ROWS) * LONG * 4  # what four layers more keep, if they keep it
    assert many - few < kept + 300_000


def test_a_whole_pattern_is_far_over_that_bound(deep, ids):
    assert most(lambda: deep[2].trace(ids, capture=PATTERNS)) > 10 * LONG * LONG
