"""A fold holds one layer's signals at a time, and results that do not grow with the width of the model."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pytest
from attrs import evolve

from llmtrace.influence.alti import AltiFold
from llmtrace.influence.attention import AttentionFold
from llmtrace.influence.dla import DlaFold
from llmtrace.influence.logit_lens import LensFold
from llmtrace.influence.method import Task
from llmtrace.influence.rollout import RolloutFold
from llmtrace.schema.arithmetic import NumPy
from llmtrace.spec import Attention, Block, Branch, GatedMlp, ModelSpec, Norm, PreNorm

FOLDS = (AttentionFold, RolloutFold, AltiFold, DlaFold, LensFold)
BLOCK = Block(
    (PreNorm("ln1", "resid_pre", Norm(1e-5)), PreNorm("ln2", "resid_mid", Norm(1e-5))),
    (Branch("attn", "ln1.out", Attention(8, 4, 8, 8, 0.35)), Branch("mlp", "ln2.out", GatedMlp(32, "silu"))),
)
LENGTH = 48


class Array(np.ndarray):
    """An array that a weak reference may point to."""


def task(model, length):
    named = model.tokens([n % 7 for n in range(length)])
    return Task(model.equations, named, length - 1, named[0], None, named)


def layered(model, length):
    """Signals layer by layer, as a run hands them over."""
    trace = model.trace([n % 7 for n in range(length)])
    for layer in range(len(model.spec.blocks)):
        yield layer, {site: array for site, array in trace.known.items() if site.startswith(f"blocks.{layer}.")}


@pytest.mark.parametrize("kind", FOLDS)
def test_no_signal_of_a_layer_outlives_the_layer(kind, built):
    model = built(ModelSpec("by hand", 32, 7, None, (BLOCK,) * 3, Norm(1e-5)))
    fold = kind(task(model, 6))
    references = []
    for layer, signals in layered(model, 6):
        mine = {site: array.copy().view(Array) for site, array in signals.items() if site in fold.sites}
        assert mine, layer
        references += [weakref.ref(array) for array in mine.values()]
        fold.layer(layer, mine)
        del mine
        assert [reference for reference in references if reference() is not None] == []


@pytest.mark.parametrize("kind", FOLDS)
def test_what_is_left_after_a_layer_does_not_grow_with_depth_beyond_its_row(kind, built):
    model = built(ModelSpec("by hand", 32, 7, None, (BLOCK,) * 6, Norm(1e-5)))
    fold = kind(task(model, LENGTH))
    layers = list(layered(model, LENGTH))
    pattern = 8 * LENGTH * LENGTH * 8
    fold.layer(*layers[0])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    peaks = []
    for layer, signals in layers[1:]:
        tracemalloc.reset_peak()
        fold.layer(layer, signals)
        peaks.append(tracemalloc.get_traced_memory()[1])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < pattern / 4  # five layers later: less than a quarter of one layer's pattern
    assert max(peaks[1:]) - peaks[0] < pattern / 4


def test_altis_vectors_come_in_chunks(built):
    model = built(ModelSpec("by hand", 32, 7, None, (BLOCK,), Norm(1e-5)))
    model.equations = evolve(model.equations, arithmetic=NumPy(8 * 8 * 32))
    peaks = {}
    for length in (96, 192):
        fold = AltiFold(task(model, length))
        ((layer, signals),) = layered(model, length)
        tracemalloc.start()
        fold.layer(layer, signals)
        peaks[length] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    whole = 192 * 192 * 32 * 8  # all transformed vectors at once
    assert peaks[192] < whole
