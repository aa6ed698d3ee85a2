"""Routers against torch's own functions, as the models of transformers put them together."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.identify import Unfit
from llmtrace.dataflow.identify.router import FoundRouter, find_router
from llmtrace.spec import Groups
from tests.dataflow.identify.pieces import UNITS, torch

F = torch.nn.functional
EXPERTS, CHOICES = 8, 3
BIAS = torch.linspace(-0.3, 0.4, EXPERTS)[torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])]


def piece(route, dtype=torch.float32):
    """A function of torch tensors, as a graph would run it."""

    def run(logits):
        with torch.no_grad():
            ranked, index, weights = route(torch.from_numpy(np.array(logits)).to(dtype))
        return ranked.float().numpy(), index.numpy(), weights.float().numpy()

    return run


def before(score, renormalise=False, scale=1.0, bias=None, weigh=None, eps=0.0):
    """Score all experts, then choose."""

    def route(logits):
        scores = score(logits)
        ranked = scores if bias is None else scores + bias.to(scores)
        index = ranked.topk(CHOICES, -1).indices
        weights = (scores if weigh is None else weigh(logits)).gather(-1, index)
        return ranked, index, scale * (weights / (weights.sum(-1, keepdim=True) + eps) if renormalise else weights)

    return route


def after(score, scale=1.0, bias=None):
    """Choose, then score the chosen."""

    def route(logits):
        ranked = logits if bias is None else logits + bias.to(logits)
        index = ranked.topk(CHOICES, -1).indices
        return ranked, index, scale * score(logits.gather(-1, index))

    return route


def soft(x):
    return F.softmax(x, -1)


KNOWN = {
    "OLMoE": (before(soft), ("softmax", False, 1.0, False)),
    "Mixtral": (before(soft, renormalise=True), ("softmax", True, 1.0, False)),
    "GPT-OSS": (after(soft), ("topk_softmax", False, 1.0, False)),
    "GLM 4.5": (before(torch.sigmoid, renormalise=True, scale=1.5, bias=BIAS), ("sigmoid", True, 1.5, True)),
    "a sigmoid, scaled": (before(torch.sigmoid, scale=2.5), ("sigmoid", False, 2.5, False)),
    "a softmax, corrected": (before(soft, bias=BIAS / 4), ("softmax", False, 1.0, True)),
    "Llama 4": (after(torch.sigmoid), ("sigmoid", False, 1.0, False)),
    "the chosen, corrected": (after(soft, bias=BIAS), ("topk_softmax", False, 1.0, True)),
    "logits chosen, a softmax of all weighs": (before(torch.clone, weigh=soft), ("softmax", False, 1.0, False)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", KNOWN)
def test_a_router_is_named(name, dtype):
    route, (scoring, renormalise, scale, corrected) = KNOWN[name]
    found = find_router(piece(route, dtype), EXPERTS, candidates=[scale], unit=UNITS[dtype])
    assert isinstance(found, FoundRouter), found
    assert (found.choices, found.scoring, found.renormalise, found.scale) == (CHOICES, scoring, renormalise, scale)
    assert (found.correction is not None) == corrected


def test_a_sigmoid_of_logits_that_were_chosen_with_a_correction():
    found = find_router(piece(after(torch.sigmoid, bias=BIAS)), EXPERTS)
    assert isinstance(found, FoundRouter), found
    assert found.scoring == "topk_sigmoid"
    np.testing.assert_allclose(found.correction, BIAS.numpy(), atol=1e-6)


@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_what_is_added_to_the_sum_of_weights(eps):
    found = find_router(piece(before(torch.sigmoid, renormalise=True, eps=eps)), EXPERTS, candidates=[1.0, eps])
    assert isinstance(found, FoundRouter), found
    assert (found.scoring, found.renormalise, found.eps) == ("sigmoid", True, eps)
    assert isinstance(find_router(piece(before(torch.sigmoid, renormalise=True, eps=1e-3)), EXPERTS), Unfit)


def sparse(jitter, choose=None):
    """PhiMoE's, by transformers' own function."""
    phimoe = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")

    def route(logits):
        weights, index = phimoe.sparsemixer(logits, jitter, training=False)
        return logits, index if choose is None else choose(index), weights

    return route


@pytest.mark.parametrize("jitter", [0.01, 0.1, 0.003])
def test_a_sparse_mixer_is_told_with_what_is_near(jitter):
    found = find_router(piece(sparse(jitter)), EXPERTS, ordered=True)
    assert isinstance(found, FoundRouter), found
    assert (found.scoring, found.choices) == ("sparsemixer", 2)
    assert found.near == pytest.approx(2 * jitter, rel=1e-9)


def test_experts_that_do_not_come_best_first_are_refused_where_they_must():
    turned = piece(sparse(0.01, choose=lambda index: index.flip(-1)))
    found = find_router(turned, EXPERTS, ordered=True)
    assert isinstance(found, Unfit)
    assert "best first" in found.why


def test_the_correction_is_measured():
    found = find_router(piece(before(torch.sigmoid, bias=BIAS)), EXPERTS)
    np.testing.assert_allclose(found.correction, BIAS.numpy(), atol=1e-6)


def test_one_choice_and_all_of_them_are_told():
    for count in (1, EXPERTS):

        def route(logits, count=count):
            weights, index = soft(logits).topk(count, -1)
            return soft(logits), index, weights

        assert find_router(piece(route), EXPERTS).choices == count


def grouped(score, groups, kept, best, bias=None, fill=float("-inf")):
    """DeepSeek's: only experts of the best groups may be chosen."""

    def route(logits):
        scores = score(logits)
        ranked = scores if bias is None else scores + bias.to(scores)
        each = ranked.view(len(logits), groups, -1).topk(best, -1).values.sum(-1)
        mask = torch.zeros_like(each).scatter(1, each.topk(kept, -1).indices, 1).bool()
        ranked = ranked.masked_fill(~mask.repeat_interleave(EXPERTS // groups, -1), fill)
        index = ranked.topk(CHOICES, -1).indices
        return ranked, index, scores.gather(-1, index)

    return route


@pytest.mark.parametrize(
    ("route", "groups"),
    [
        (grouped(torch.sigmoid, 4, 2, 2, BIAS), Groups(4, 2, 2)),
        (grouped(soft, 4, 3, 1, fill=0.0), Groups(4, 3, 1)),
        (grouped(torch.sigmoid, 2, 1, 2, fill=0.0), Groups(2, 1, 2)),
    ],
)
def test_groups_that_experts_are_chosen_from(route, groups):
    found = find_router(piece(route), EXPERTS)
    assert isinstance(found, FoundRouter), found
    assert found.groups == groups


def test_a_rank_of_nought_for_experts_that_are_hidden_is_refused_where_others_may_be_below():
    found = find_router(piece(grouped(torch.sigmoid, 4, 2, 2, BIAS - 0.3, 0.0)), EXPERTS)
    assert isinstance(found, Unfit)


def _second_best(logits):
    index = logits.topk(CHOICES + 1, -1).indices[:, 1:]
    return soft(logits), index, soft(logits).gather(-1, index)


def _one_twice(logits):
    index = logits.topk(CHOICES, -1).indices.clone()
    index[:, 1] = index[:, 0]
    return soft(logits), index, soft(logits).gather(-1, index)


def _by_groups(logits):
    """Only the worse half of the experts may be chosen."""
    groups = logits.view(len(logits), 2, EXPERTS // 2)
    best = groups.max(-1).values.argmin(-1)
    mask = F.one_hot(best, 2).bool().repeat_interleave(EXPERTS // 2, -1)
    ranked = torch.sigmoid(logits).masked_fill(~mask, 0.0)
    index = ranked.topk(CHOICES, -1).indices
    return ranked, index, ranked.gather(-1, index)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (_second_best, "not those that it ranks highest"),
        (_one_twice, "not those that it ranks highest"),
        (_by_groups, "not those of groups that rank lower"),
        (before(lambda x: soft(x / 1.01)), "no softmax or sigmoid"),
        (before(torch.tanh), "no softmax or sigmoid"),
        (before(soft, weigh=lambda x: soft(x).square()), "weights of its experts are off"),
        (before(torch.sigmoid, bias=BIAS, weigh=lambda x: torch.sigmoid(x) + BIAS), "weights of its experts are off"),
        (before(soft, weigh=lambda x: 0 * x), "weights of its experts are off"),
        (lambda x: (x, x.topk(3, -1).indices, x[:, :2]), "it makes weights"),
        (before(soft, scale=float("nan")), "not all finite"),
    ],
)
def test_what_no_router_says_is_refused(wrong, why):
    found = find_router(piece(wrong), EXPERTS)
    assert isinstance(found, Unfit)
    assert why in found.why
