"""Softmax, with sinks and without, against torch and transformers' GPT-OSS."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.dataflow.identify import FoundSoftmax, Unfit, find_softmax
from tests.dataflow.identify.pieces import UNITS, of, torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_plain_softmax_has_no_sinks(dtype):
    found = find_softmax(of(lambda s: torch.softmax(s, -1), dtype), 3, unit=UNITS[dtype])
    assert isinstance(found, FoundSoftmax)
    assert found.sinks is None


def eager(sinks):
    """The pattern of GPT-OSS's attention: queries that make the scores, values that show the pattern."""
    pytest.importorskip("transformers")
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    def piece(scores):
        module = types.SimpleNamespace(num_key_value_groups=1, training=False, sinks=sinks)
        query, key = scores[None], torch.eye(scores.shape[-1])[None].expand(1, len(scores), -1, -1)
        _, weights = eager_attention_forward(module, query, key, key, None, scaling=1.0, dropout=0.0)
        return weights[0]

    return piece


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=4))
def test_gpt_oss_sinks_are_found(sinks):
    found = find_softmax(of(eager(torch.tensor(sinks, dtype=torch.float32))), len(sinks))
    assert isinstance(found, FoundSoftmax), found
    np.testing.assert_allclose(found.sinks, sinks, rtol=1e-5, atol=1e-5)


def test_sinks_of_float16_are_found_as_well_as_it_resolves():
    sinks = torch.tensor([-3.0, 0.5], dtype=torch.float16)

    def piece(scores):
        column = sinks[:, None, None].expand(-1, scores.shape[1], 1)
        return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]

    found = find_softmax(of(piece, torch.float16), 2, unit=UNITS[torch.float16])
    np.testing.assert_allclose(found.sinks, sinks, atol=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.sigmoid,
        lambda s: torch.softmax(s, -2),
        lambda s: torch.softmax(2 * s, -1),
        lambda s: 0.9 * torch.softmax(s, -1),
        lambda s: torch.softmax(s, -1).roll(1, 0),
        torch.zeros_like,
        lambda s: s,
        lambda s: s[..., :-1],
    ],
)
def test_what_is_neither_is_refused(wrong):
    assert isinstance(find_softmax(of(wrong), 3), Unfit)
