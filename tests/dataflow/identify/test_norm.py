"""Norms against torch's own, and against what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.identify import FLOAT16, FoundNorm, Unfit, find_head_norm, find_norm
from llmtrace.spec import Norm
from tests.dataflow.identify.pieces import UNITS, of, torch

EPS = st.tuples(st.integers(1, 99), st.integers(-10, -5)).map(lambda parts: float(f"{parts[0]}e{parts[1]}"))
"""Decimals of two digits from 1e-10 to about 1e-3."""


def filled(norm, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return norm


@settings(max_examples=25, deadline=None)
@given(EPS, st.sampled_from([3, 8, 64, 200]))
def test_an_rms_norm_is_found_with_its_eps_and_weight(eps, width):
    theirs = filled(torch.nn.RMSNorm(width, eps=eps))
    found = find_norm(of(theirs), width)
    assert isinstance(found, FoundNorm), found
    assert found.norm == Norm(eps)
    assert found.b is None
    np.testing.assert_allclose(found.w, theirs.weight.detach(), rtol=5e-7)


@settings(max_examples=25, deadline=None)
@given(EPS, st.sampled_from([3, 8, 64, 200]))
def test_a_layer_norm_is_found_with_its_eps_weight_and_bias(eps, width):
    theirs = filled(torch.nn.LayerNorm(width, eps=eps))
    found = find_norm(of(theirs), width)
    assert isinstance(found, FoundNorm), found
    assert found.norm == Norm(eps, centred=True, bias=True)
    np.testing.assert_allclose(found.w, theirs.weight.detach(), rtol=5e-7, atol=1e-6)
    np.testing.assert_allclose(found.b, theirs.bias.detach(), rtol=5e-7)


@pytest.mark.parametrize("kind", [torch.nn.RMSNorm, torch.nn.LayerNorm])
def test_a_norm_without_weights_has_none(kind):
    found = find_norm(of(kind(64, eps=1e-6)), 64)
    assert found.norm == Norm(1e-6, centred=kind is torch.nn.LayerNorm, weight=False)
    assert found.w is found.b is None


def test_gemmas_weight_is_as_multiplied():
    weight = torch.linspace(-0.5, 0.5, 32)

    def gemma(x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + weight)

    np.testing.assert_allclose(find_norm(of(gemma), 32).w, 1 + weight, rtol=5e-7)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_float16_outputs_are_enough(eps):
    theirs = filled(torch.nn.RMSNorm(64, eps=eps)).half()
    found = find_norm(of(theirs, torch.float16), 64, unit=FLOAT16)
    assert found.norm == Norm(eps)
    np.testing.assert_allclose(found.w, theirs.weight.detach().float(), rtol=2e-3)


def test_no_eps_is_nought():
    theirs = filled(torch.nn.RMSNorm(16, eps=0.0))
    assert find_norm(of(theirs), 16).norm == Norm(0.0)


def test_a_constant_of_the_graph_is_preferred_to_a_shorter_decimal():
    eps = float(np.float32(1.1920928955078125e-07))
    assert find_norm(of(torch.nn.RMSNorm(64, eps=eps)), 64, candidates=[1e-5, eps]).norm.eps == 1.1920929e-07


HEADS, D_HEAD = 4, 8


def test_one_weight_serves_all_heads():
    theirs = filled(torch.nn.RMSNorm(D_HEAD, eps=1e-6))
    found = find_head_norm(of(theirs), HEADS, D_HEAD)
    assert found.norm == Norm(1e-6, over="d_head")
    np.testing.assert_allclose(found.w, theirs.weight.detach(), rtol=5e-7)


def test_each_head_has_a_weight_of_its_own():
    theirs, weight = torch.nn.LayerNorm(D_HEAD, eps=1e-5, elementwise_affine=False), torch.randn(HEADS, D_HEAD)
    found = find_head_norm(of(lambda x: theirs(x) * weight), HEADS, D_HEAD, head="kv_head")
    assert found.norm == Norm(1e-5, centred=True, over="d_head", each="kv_head")
    np.testing.assert_allclose(found.w, weight, rtol=1e-6, atol=1e-6)


def test_the_whole_width_is_normed_together():
    theirs = filled(torch.nn.RMSNorm(HEADS * D_HEAD, eps=1e-5))
    found = find_head_norm(of(lambda x: theirs(x.flatten(1)).view(x.shape)), HEADS, D_HEAD, head="kv_head")
    assert found.norm == Norm(1e-5, over="kv_head d_head")
    np.testing.assert_allclose(found.w, theirs.weight.detach().view(HEADS, D_HEAD), rtol=5e-7)


def test_a_single_head_is_normed_by_itself():
    theirs = filled(torch.nn.RMSNorm(D_HEAD, eps=1e-6))
    assert find_head_norm(of(theirs), 1, D_HEAD).norm == Norm(1e-6, over="d_head")


def outside(x):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-3)


def floored(x):
    return torch.nn.functional.normalize(x, dim=-1, eps=1e-3)


def absolute(x):
    return x / (x.abs().mean(-1, keepdim=True) + 1e-5)


def mixed(x):
    return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=1e-5) @ torch.eye(x.shape[-1], dtype=x.dtype).roll(1, 0)


def across(x):
    return x / torch.sqrt(x.pow(2).mean(0, keepdim=True) + 1e-5)


def part(x):
    return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=1e-5).clamp(-1.5, 1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "wrong", [outside, floored, absolute, mixed, across, part, torch.tanh, torch.clone, torch.zeros_like]
)
def test_what_is_no_norm_is_refused_with_a_reason(wrong, dtype):
    found = find_norm(of(wrong, dtype), 32, unit=UNITS[dtype])
    assert isinstance(found, Unfit)
    assert "RMS norm over d_model" in found.why
    assert "layer norm over d_model" in found.why


def test_another_shape_is_refused():
    assert isinstance(find_norm(lambda x: x[:, :-1], 8), Unfit)
    assert isinstance(find_head_norm(lambda x: x[:, :1], 2, 8), Unfit)
