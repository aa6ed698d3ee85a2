"""The kernel of attention against torch's score modifications and transformers' own ALiBi."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.identify import FoundKernel, Unfit, find_kernel
from tests.dataflow.identify.pieces import UNITS, of, torch

HEADS, KV_HEADS, D_HEAD = 4, 2, 12


def attention(scale=D_HEAD**-0.5, cap=None, window=None, bias=None, reads=(0, 0, 1, 1), hidden=-torch.inf, causal=True):
    """Scores by torch; `bias(n)` is added before the mask."""

    def piece(q, k):
        n = len(q)
        scores = torch.einsum("qhd,khd->hqk", q, k[:, list(reads)]) * scale
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        if bias is not None:
            scores = scores + bias(n).to(q.dtype)
        distance = torch.arange(n)[:, None] - torch.arange(n)
        seen = (distance >= 0) | (not causal)
        if window is not None:
            seen &= distance < window
        return scores.masked_fill(~seen, hidden)

    return piece


def find(longest=100, dtype=torch.float32, candidates=(), **how):
    return find_kernel(
        of(attention(**how), dtype), HEADS, KV_HEADS, D_HEAD, longest=longest, candidates=candidates, unit=UNITS[dtype]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_usual_kernel_is_found(dtype):
    found = find(dtype=dtype)
    assert isinstance(found, FoundKernel), found
    assert found.scale == D_HEAD**-0.5
    assert found.softcap is found.window is None
    assert found.slopes == ()
    assert found.origin == "query"
    assert found.reads == (0, 0, 1, 1)
    assert found.grouped(KV_HEADS)
    assert found.length == 100


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 999).map(lambda digits: digits / 1000),
    st.integers(5, 100) | st.none(),
    st.integers(1, 99) | st.none(),
    st.sampled_from([-torch.inf, -1e4, -1e9, torch.finfo(torch.float32).min]),
)
def test_scale_cap_and_window_are_found_under_any_mask(scale, cap, window, hidden):
    found = find(scale=scale, cap=cap, window=window, hidden=hidden)
    assert isinstance(found, FoundKernel), found
    assert (found.scale, found.softcap, found.window) == (scale, cap, window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gemma_2s_kernel_is_found(dtype):
    found = find(dtype=dtype, scale=256**-0.5, cap=50.0, window=9)
    assert isinstance(found, FoundKernel), found
    assert (found.scale, found.softcap, found.window) == (0.0625, 50.0, 9)


def test_a_scale_shared_by_q_and_k_is_the_root_all_the_same():
    root = torch.tensor(D_HEAD**-0.5).sqrt()

    def piece(q, k):
        return attention(scale=1.0)(q * root, k * root)

    assert find_kernel(of(piece), HEADS, KV_HEADS, D_HEAD, longest=60).scale == D_HEAD**-0.5


def test_a_scale_that_nobody_expected_is_exact_to_float32():
    assert find(scale=0.123456789).scale == pytest.approx(0.123456789, rel=2**-23)
    assert find(scale=0.123456789, candidates=[0.123456789]).scale == 0.123456789


def test_a_window_of_a_thousand_needs_as_many_tokens():
    assert find(window=1024, longest=1100).window == 1024
    assert find(window=1024, longest=900).window is None


def test_blooms_alibi_counts_from_the_first_token():
    pytest.importorskip("transformers")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    def bias(n):
        return build_alibi_tensor(torch.ones(1, n), HEADS, torch.float32)

    found = find(bias=bias)
    assert isinstance(found, FoundKernel), found
    assert found.origin == "first"
    assert found.slopes == (0.25, 0.0625, 0.015625, 0.00390625)
    np.testing.assert_allclose(found.constant, np.outer(found.slopes, np.arange(100)), atol=1e-4)


def test_mpts_alibi_counts_from_the_last_token():
    pytest.importorskip("transformers")
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    def bias(n):
        return build_mpt_alibi_tensor(HEADS, n, alibi_bias_max=8)

    found = find(bias=bias)
    assert isinstance(found, FoundKernel), found
    assert found.origin == "last"
    assert found.slopes == (0.25, 0.0625, 0.015625, 0.00390625)
    np.testing.assert_allclose(found.constant, np.outer(found.slopes, np.arange(100) - 99), atol=1e-4)


def from_token(origin):
    slopes = torch.tensor([0.7, 0.3, 0.11, 0.0])

    def bias(n):
        at = torch.arange(n)
        start = at[:, None] if origin == "query" else torch.full((n, 1), origin)
        return slopes[:, None, None] * (at - start)

    return bias


@pytest.mark.parametrize("origin", ["query", 5])
def test_alibi_from_elsewhere_is_found_with_what_it_adds_to_rows(origin):
    found = find(bias=from_token(origin), window=20)
    assert isinstance(found, FoundKernel), found
    assert found.origin == ("query" if origin == "query" else "other")
    np.testing.assert_allclose(found.slopes, [0.7, 0.3, 0.11, 0.0], rtol=1e-6)
    expected = 0.0 if origin == "query" else np.outer(found.slopes, np.arange(100) - 5)
    np.testing.assert_allclose(found.constant, expected + np.zeros((4, 100)), atol=1e-4)


def test_heads_that_take_turns_are_said():
    found = find(reads=(0, 1, 0, 1))
    assert found.reads == (0, 1, 0, 1)
    assert not found.grouped(KV_HEADS)


def test_attention_that_looks_ahead_is_refused():
    found = find(causal=False)
    assert found == Unfit("query 0 sees key 1, which comes after it: attention is not causal")


def relative(n):
    distance = torch.arange(n)[:, None] - torch.arange(n)
    return torch.log1p(distance.clamp(min=0).float()).expand(HEADS, n, n)


def chunks(n):
    at = torch.arange(n)
    return torch.where(at[:, None] // 16 == at // 16, 0.0, -torch.inf).expand(HEADS, n, n)


def one_head(n):
    bias = torch.zeros(HEADS, n, n)
    bias[1, :, 3] = -torch.inf
    return bias


@pytest.mark.parametrize("bias", [relative, chunks, one_head])
def test_what_alibi_and_windows_do_not_say_is_refused(bias):
    assert isinstance(find(bias=bias), Unfit)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, k: attention()(q * torch.linspace(1, 2, D_HEAD), k),
        lambda q, k: attention()(q.roll(1, -1), k),
        lambda q, k: attention()(q, k) - attention()(q, k).amax(-1, keepdim=True),
        lambda q, k: attention()(q, k) * torch.linspace(1, 2, HEADS)[:, None, None],
        lambda q, k: attention()(torch.nn.functional.normalize(q, dim=-1), k),
        lambda q, k: attention(scale=1.0)(q, k).clamp(-50, 50).masked_fill(attention()(q, k) == -torch.inf, -torch.inf),
        lambda q, k: attention()(q[:, :1].expand_as(q), k),
        lambda q, k: attention(window=len(q) // 2)(q, k),
        lambda q, k: attention()(q, k).softmax(-1),
        lambda q, k: attention()(q, k)[..., :-1],
        lambda q, k: attention()(q, k) * 0,
    ],
)
def test_what_is_no_kernel_is_refused(wrong):
    assert isinstance(find_kernel(of(wrong), HEADS, KV_HEADS, D_HEAD, longest=100), Unfit)


def test_a_window_that_grows_with_the_prompt_is_refused_by_name():
    found = find_kernel(of(lambda q, k: attention(window=len(q) // 2)(q, k)), HEADS, KV_HEADS, D_HEAD, longest=100)
    assert "a window of 50 in 100 tokens" in found.why


def test_a_mask_that_depends_on_queries_is_refused_by_name():
    def piece(q, k):
        return attention(causal=not q.any())(q, k)

    found = find_kernel(of(piece), HEADS, KV_HEADS, D_HEAD, longest=100)
    assert found == Unfit("which keys a query sees depends on queries or keys")


@pytest.mark.parametrize("longest", [13, 40, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_prompts_may_be_shorter_than_all_that_is_tried(longest, dtype):
    found = find(longest, dtype, candidates=(30.0,), cap=30.0, window=7, reads=(1, 0, 1, 0))
    assert isinstance(found, FoundKernel), found
    assert (found.scale, found.softcap, found.window, found.reads) == (D_HEAD**-0.5, 30.0, 7, (1, 0, 1, 0))
    assert found.length == longest


def test_no_prompt_is_longer_than_the_longest():
    seen = []
    usual = of(attention(), torch.float32)

    def piece(q, k):
        seen.append(len(q))
        return usual(q, k)

    assert isinstance(find_kernel(piece, HEADS, KV_HEADS, D_HEAD, longest=40), FoundKernel)
    assert set(seen) == {40}


def test_a_channel_that_does_not_count_is_seen_in_short_prompts_too():
    usual = attention()
    found = find_kernel(
        of(lambda q, k: usual(q * (torch.arange(D_HEAD) != 5), k), torch.float32), HEADS, KV_HEADS, D_HEAD, longest=16
    )
    assert isinstance(found, Unfit)
