"""How far two predictions are from each other, by the formulas written out, and by PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmtrace.comparison.outputs import outputs

RANDOM = np.random.default_rng(2)
P = 3 * RANDOM.normal(size=(5, 11)).astype(np.float32)
Q = P + 0.3 * RANDOM.normal(size=(5, 11)).astype(np.float32)


def probabilities(row):
    powers = [math.exp(float(each)) for each in row]
    return [each / sum(powers) for each in powers]


def test_two_tokens_by_hand():
    found = outputs(3, np.array([[0.0, math.log(3)]]), np.array([[math.log(3), 0.0]]))
    assert found.mean_kld == pytest.approx(0.25 * math.log(1 / 3) + 0.75 * math.log(3))
    assert (found.prompt, found.tokens, found.same_top, found.worst_token) == (3, 1, 0.0, 0)
    assert found.largest_shift == pytest.approx(0.5)


def test_divergence_is_the_reference_s_first_and_in_nats():
    each = []
    for p, q in zip(P, Q, strict=True):
        a, b = probabilities(p), probabilities(q)
        each.append(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True)))
    found = outputs(0, P, Q)
    assert found.mean_kld == pytest.approx(sum(each) / 5, rel=1e-9)
    assert (found.worst_kld, found.worst_token) == (pytest.approx(max(each), rel=1e-9), int(np.argmax(each)))
    assert outputs(0, Q, P).mean_kld != pytest.approx(found.mean_kld, rel=1e-3)


def test_it_is_pytorch_s():
    torch = pytest.importorskip("torch")
    p, q = (torch.log_softmax(torch.tensor(x, dtype=torch.float64), -1) for x in (P, Q))
    theirs = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert outputs(0, P, Q).mean_kld == pytest.approx(float(theirs), rel=1e-12)


def test_the_same_top_and_the_largest_shift_of_what_the_reference_predicts():
    found = outputs(0, P, Q)
    assert found.same_top == np.mean(P.argmax(1) == Q.argmax(1))
    shifts = [abs(probabilities(p)[p.argmax()] - probabilities(q)[p.argmax()]) for p, q in zip(P, Q, strict=True)]
    assert found.largest_shift == pytest.approx(max(shifts), rel=1e-9)


def test_the_same_is_zero_also_where_logits_are_huge_or_shifted():
    huge = np.array([[1e4, -1e4, 0.0]])
    assert outputs(0, huge, huge).worst_kld == 0
    assert outputs(0, P, P + 7).mean_kld == pytest.approx(0, abs=1e-7)


def test_what_cannot_be_compared_is_not():
    assert outputs(0, P, P[:4]) is None
    assert outputs(0, P, np.where(P[0, 0] == P, np.nan, P)) is None
