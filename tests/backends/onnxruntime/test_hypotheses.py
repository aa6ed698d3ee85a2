"""Where a processor cut sums off, `compare` says so: told from the numbers, whoever ran them. Held to sums that are added here one by one, and where
this processor cuts off, to ONNX Runtime.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import llmtrace
from llmtrace.comparison.case import Case
from llmtrace.comparison.diagnosis import diagnose
from llmtrace.comparison.hypotheses import HYPOTHESES
from llmtrace.comparison.specs import swapped
from llmtrace.families import spec_of
from llmtrace.schema.evaluate import Equations
from llmtrace.testing.tiny import TINY
from llmtrace_onnxruntime.hypotheses import PRODUCTS, ROWS, grids_of
from llmtrace_onnxruntime.int16_sums import excess
from llmtrace_onnxruntime.saturating import saturates
from tests.backends.onnxruntime.opening import open_graph, write
from tests.backends.onnxruntime.reading.opened import error
from tests.backends.onnxruntime.reading.test_quantised import quantised, rounded
from tests.backends.onnxruntime.written import TOKENS, drawn

RANDOM = np.random.default_rng(0)
CPU = ("CPUExecutionProvider",)
SITES = ("blocks.1.attn.q", "blocks.1.attn.v", "blocks.1.attn.out", "blocks.1.mlp.pre", "blocks.1.mlp.out", "logits")


def added(levels, matrix):
    """Sums of which each two products are added in 16 bits, one after the other."""
    found = np.zeros((len(levels), matrix.shape[1]), int)
    for (row, x), (column, w) in itertools.product(enumerate(levels.tolist()), enumerate(matrix.T.tolist())):
        for first in range(0, len(w), 2):
            both = sum(x[at] * w[at] for at in range(first, min(first + 2, len(w))))
            found[row, column] += min(max(both, -32768), 32767)
    return found


@given(st.data(), st.integers(1, 4), st.integers(1, 7), st.integers(1, 3))
def test_the_excess_is_what_adding_in_16_bits_takes_off(data, tokens, width, out):
    levels = data.draw(arrays(np.uint8, (tokens, width), elements=st.integers(0, 255) | st.just(255))).astype(int)
    matrix = data.draw(arrays(np.int8, (width, out), elements=st.integers(-128, 127) | st.just(127))).astype(int)
    found = levels @ matrix - excess(levels.astype(np.int32), matrix.astype(np.int16))
    np.testing.assert_array_equal(found, added(levels, matrix))


def stands_for(levels, zero, scales):
    """As a file's numbers are made, in float32."""
    return (np.float32(levels - zero) * np.float32(scales)).astype(float)


@pytest.mark.parametrize("width", [6, 64, 576])
@pytest.mark.parametrize("steps", ["one", "a column"])
def test_levels_are_told_from_the_numbers_that_they_stand_for(width, steps):
    levels = np.clip(np.rint(RANDOM.normal(0, 40, (width, 32))), -127, 127).astype(int)
    levels[0] = np.where(RANDOM.random(32) < 0.5, 127, -127)
    scales = RANDOM.uniform(0.001, 0.1, 32) if steps == "a column" else np.full(32, 0.0123)
    found = list(grids_of(stands_for(levels, 0, scales)))
    assert any((raw == levels).all() and np.allclose(step, scales, rtol=1e-6) for raw, step in found)
    assert len(found) <= 2  # one of either zero


@pytest.mark.parametrize("zero", [-20, 7])
def test_so_is_a_zero_that_is_not_in_the_middle(zero):
    levels = RANDOM.integers(-128, 128, (64, 32))
    levels[0, 0] = -128
    assert any((raw == levels).all() for raw, _ in grids_of(stands_for(levels, zero, np.full(32, 0.0123))))


def test_and_levels_of_which_there_are_few():
    levels = np.where(RANDOM.random((64, 8)) < 0.5, 127, -127)
    levels[:, 3] = 0
    assert any((raw == levels).all() for raw, _ in grids_of(stands_for(levels, 0, np.full(8, 0.5))))


@pytest.mark.parametrize("kind", ["floats", "16 bits", "a step a block", "part of 4,096"])
def test_another_matrix_has_no_levels(kind):
    matrix = RANDOM.normal(size=(64, 8))
    if kind == "16 bits":
        matrix = np.rint(3000 * matrix) * 1e-4
    if kind == "a step a block":
        matrix = np.rint(matrix * 30) * np.repeat(RANDOM.uniform(0.01, 0.02, (4, 8)), 16, 0)
    if kind == "part of 4,096":
        matrix = RANDOM.integers(-2048, 2048, (64, 8)) / 2048
    assert not list(grids_of(matrix))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A model whose sums are cut off wherever two inputs that are added lie above the middle: neighbouring weights are alike and as large as any."""
    place = tmp_path_factory.mktemp("cut")
    source = drawn(spec_of({"model_type": "llama", **TINY["llama"]}))
    weights = dict(source.weights)
    for name in ("attn.W_Q", "attn.W_V", "attn.W_O", "mlp.W_gate", "mlp.W_in", "mlp.W_out"):
        for layer in range(len(source.spec.blocks)):
            weight = f"blocks.{layer}.{name}"
            if weight in weights:
                sign = np.sign(weights[weight])
                sign[..., 1::2, :] = sign[..., ::2, :]
                weights[weight] = (sign * RANDOM.uniform(0.8, 1, sign.shape) * np.abs(weights[weight]).mean()).astype(
                    np.float32
                )
    path = quantised(write(evolve(source, weights=weights), place / "float"), place / "int8", per_channel=True)
    with open_graph(path) as model:
        trace = model.trace(list(TOKENS))
        signals = {site: trace[site].array for site in trace.signals}
        yield path, model.spec, dict(model.weights), signals


def case(cut, site, found, spec=None):
    _, own, weights, signals = cut
    spec = spec or own
    equations = Equations(spec, weights)
    captured = signals | {site: found, "tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
    return Case(site, captured, equations, equations, spec, 1e-4)


def as_cut(cut, site):
    """A site as a processor makes it that cuts off: levels by ONNX's own rounding, and sums added one by one."""
    _, spec, weights, signals = cut
    step = Equations(spec, weights).step(site)
    (name,) = (name for name in step.signals.values() if name in signals and name != "positions")
    (matrix,) = (weights[each.name] for each in step.weights.values() if ".W_" in each.name)
    rows = signals[name].reshape(len(TOKENS), -1)
    if site.endswith(("attn.q", "attn.v")):
        matrix = matrix.transpose(1, 0, 2)
    matrix = matrix.reshape(rows.shape[1], -1)
    scales = np.abs(matrix).max(0) / 127  # symmetric, as `quantize_dynamic` makes int8
    levels = np.rint(matrix / scales).astype(int)
    values = rounded(rows)
    step = (max(rows.max(), 0) - min(rows.min(), 0)) / 255
    zero = int(np.rint(-min(rows.min(), 0) / step))
    x = np.rint(values / step).astype(int) + zero
    assert x.min() >= 0 and x.max() == 255
    whole = x @ levels
    return (signals[site] + ((added(x, levels) - whole) * scales * step).reshape(signals[site].shape)).astype(
        np.float32
    )


@pytest.mark.parametrize("site", SITES)
def test_what_was_cut_off_is_told_by_its_numbers(site, cut):
    found = as_cut(cut, site)
    asked = case(cut, site, found)
    assert any(site.endswith(end) for end in PRODUCTS)
    diagnosis = diagnose(asked, (*HYPOTHESES, *ROWS))
    assert error(found, cut[3][site]) > 1e-3  # something was cut off
    assert diagnosis.cause is not None and diagnosis.cause.name == "sums-cut-off"
    assert diagnosis.cause.after < 1e-6 < 1e-3 * diagnosis.cause.before
    assert "16 bits" in diagnosis.cause.words and "saturating=false" in diagnosis.cause.words


def test_a_cap_of_scores_is_none_of_the_product(cut):
    site, spec = "blocks.1.attn.q", cut[1]
    capped = evolve(
        spec,
        blocks=tuple(swapped(block, block.attention, evolve(block.attention, softcap=30.0)) for block in spec.blocks),
    )
    assert diagnose(case(cut, site, as_cut(cut, site), capped), ROWS).cause.name == "sums-cut-off"


def test_logits_are_scaled_after_they_were_cut(cut):
    spec = evolve(cut[1], unembed=evolve(cut[1].unembed, scale=0.5))
    cause = diagnose(case(cut, "logits", 0.5 * as_cut(cut, "logits"), spec), ROWS).cause
    assert cause.name == "sums-cut-off" and cause.after < 1e-6


@pytest.mark.parametrize("kind", ["a cap of logits", "a clip"])
def test_what_is_bent_after_the_product_is_not_asked(kind, cut):
    site, spec = ("logits", cut[1]) if kind == "a cap of logits" else ("blocks.1.attn.q", cut[1])
    bent = (
        evolve(spec, unembed=evolve(spec.unembed, softcap=30.0))
        if site == "logits"
        else evolve(
            spec,
            blocks=tuple(swapped(block, block.attention, evolve(block.attention, clip=9.0)) for block in spec.blocks),
        )
    )
    asked = case(cut, site, as_cut(cut, site), bent)
    assert not [found for row in ROWS for found in row.tries(asked)]


def test_another_fault_is_not_explained_by_it(cut):
    site = "blocks.1.mlp.out"
    wrong = 1.01 * as_cut(cut, site)
    assert diagnose(case(cut, site, wrong), ROWS).cause is None


@pytest.mark.parametrize("saved", [False, True])
def test_compare_says_why_a_file_differs_on_this_processor(saved, cut, tmp_path):
    path, candidate, prompts = cut[0], str(cut[0]), [list(TOKENS)]
    if saved:  # with its own prompt
        candidate, prompts = tmp_path / "shipped.trace", None
        with open_graph(path, "shipped") as model:
            model.trace(list(TOKENS)).save(candidate)
    result = llmtrace.compare(str(path), candidate, prompts=prompts, reference_preset="exact", preset="shipped")
    (found,) = result.candidates
    if saturates(*CPU):
        assert found.verdict == "diverges"
        assert {each.cause and each.cause.name for each in found.divergences} == {"sums-cut-off"}
        assert all(each.cause.after < 1e-5 for each in found.divergences)
    else:
        assert found.verdict in ("agrees", "within_precision")
