"""Gated activations against torch functions, transformers' GPT-OSS among them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.identify import FoundGate, Unfit, find_gated
from llmtrace.spec import Clamp
from tests.dataflow.identify.pieces import UNITS, of, torch

F = torch.nn.functional

THEIRS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "identity": torch.clone,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", THEIRS)
def test_the_first_half_is_gated(name, dtype):
    found = find_gated(of(lambda a, b: THEIRS[name](a) * b, dtype), 48, unit=UNITS[dtype])
    assert isinstance(found, FoundGate), found
    assert (found.act, found.clamp, found.swapped) == (name, None, False)


def test_the_second_half_is_gated():
    found = find_gated(of(lambda a, b: a * F.silu(b)), 48)
    assert (found.act, found.clamp, found.swapped) == ("silu", None, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_clamp_of_gpt_oss_is_found(dtype):
    pytest.importorskip("transformers")
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    experts = GptOssExperts.__new__(GptOssExperts)
    torch.nn.Module.__init__(experts)
    experts.alpha, experts.limit = 1.702, 7.0
    found = find_gated(
        of(lambda a, b: experts._apply_gate(torch.stack([a, b], -1).flatten(-2)), dtype), 32, unit=UNITS[dtype]
    )
    assert (found.act, found.clamp, found.swapped) == ("quick_gelu", Clamp(7.0, 1.0), False)


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 600).map(lambda tenths: tenths / 10), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_any_limit_and_offset_is_found(limit, offset, swapped):
    def piece(pre, linear):
        return F.silu(pre.clamp(max=limit)) * (linear.clamp(-limit, limit) + offset)

    found = find_gated(of((lambda a, b: piece(b, a)) if swapped else piece), 5)
    assert isinstance(found, FoundGate), found
    assert (found.act, found.clamp, found.swapped) == ("silu", Clamp(limit, offset), swapped)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: F.silu(a) * F.silu(b),
        lambda a, b: F.silu(a) + b,
        lambda a, b: F.silu(a) * b.clamp(max=7),
        lambda a, b: F.silu(a) * b.clamp(-7, 7),
        lambda a, b: F.silu(a) * (b + 1),
        lambda a, b: F.elu(a) * b,
        lambda a, b: 2 * F.silu(a) * b,
        lambda a, b: F.silu(a) * b.roll(1, -1),
        lambda a, b: torch.zeros_like(a),
        lambda a, b: a,
    ],
)
def test_what_no_gate_says_is_refused(wrong):
    found = find_gated(of(wrong), 48)
    assert isinstance(found, Unfit)
    assert "linear one" in found.why


def test_an_offset_that_nothing_bounds_is_refused_by_name():
    assert "1 is added to it and nothing bounds it" in find_gated(of(lambda a, b: F.silu(a) * (b + 1)), 48).why
