"""What follows from a fault is not told as another; what meets again is harmless; and nothing is explained that needs no explanation."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from llmtrace.comparison.case import Case
from llmtrace.comparison.comparing import compare
from llmtrace.comparison.diagnosis import diagnose
from llmtrace.comparison.hypotheses import HYPOTHESES
from llmtrace.comparison.hypotheses.lost import ROWS as LOST
from llmtrace.model import Model
from tests.specs import SPECS, WeighedSession, capture, equations, inputs

IDS = (1, 4, 2, 9, 0, 3)
PLAIN = equations(SPECS["sequential"])
EXPERTS = equations(SPECS["experts"])
AT = "blocks.1.attn."


def held(changed, reference=PLAIN, spec=None):
    """The same model with some of its weights changed, and perhaps another spec."""
    candidate = evolve(reference, spec=spec or reference.spec, weights={**reference.weights, **changed})
    with np.errstate(all="ignore"):  # of the session, which computes with NaN where a weight is none
        found = compare(*(Model(WeighedSession(each)) for each in (reference, candidate)), prompts=[list(IDS)])
    return found.candidates[0]


def with_nan(name, place, value=np.nan):
    array = PLAIN.weights[name].copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_number_that_is_none_is_the_only_fault_and_the_weight_is_named(value, what):
    found = held(with_nan("blocks.1.mlp.W_in", (5, 3), value))
    (only,) = found.divergences
    assert (only.site, only.kind) == ("blocks.1.mlp.pre_linear", "weights")
    assert found.headline.startswith(
        f"diverges at blocks.1.mlp.pre_linear: blocks.1.mlp.W_in: 1 number is {what}: [5, 3]"
    )
    after = {each.site: each for each in found.sites}
    for site in ("blocks.1.mlp.post", "blocks.1.mlp.out", "blocks.1.resid_post", "ln_final.out", "logits"):
        assert after[site].status == "unchecked"
        assert after[site].reason.startswith("what it is made of is not finite: ")
    assert after["blocks.1.resid_mid"].status == "holds"


def test_fewer_experts_are_told_where_they_are_chosen_and_nowhere_after():
    block = SPECS["experts"].blocks[0]
    attn, mlp = block.branches
    one = evolve(block, branches=(attn, evolve(mlp, module=evolve(mlp.module, choices=1))))
    found = held({}, EXPERTS, evolve(EXPERTS.spec, blocks=(one,)))
    (only,) = found.divergences
    assert only.site == "blocks.0.mlp.expert_index"
    assert found.headline.startswith(
        "diverges at blocks.0.mlp.expert_index: choices 1 instead of 2, as its own file says"
    )


def in_another_order():
    """Key heads swapped, and with them the query heads that read them and what reads those."""
    heads, keys = [2, 3, 0, 1], [1, 0]
    names = {
        "W_Q": heads, "b_Q": heads, "W_K": keys, "b_K": keys, "W_V": keys, "b_V": keys, "W_O": heads,
    }  # fmt: skip
    return {AT + name: PLAIN.weights[AT + name][order] for name, order in names.items()}


def test_heads_in_another_order_everywhere_are_harmless():
    found = held(in_another_order())
    assert found.divergences and all(each.cause.harmless for each in found.divergences)
    assert {each.site for each in found.divergences} == {AT + name for name in ("q", "k", "v", "out")}
    assert "; harmless in this run" in found.headline
    assert found.outputs[0].same_top == 1


def test_heads_in_another_order_but_for_one_matrix_are_not():
    found = held({name: array for name, array in in_another_order().items() if name != AT + "W_O"})
    assert {each.site for each in found.divergences} == {AT + name for name in ("q", "k", "v")}
    assert not any(each.cause.harmless for each in found.divergences)


def test_neurons_in_another_order_everywhere_are_harmless_and_in_one_matrix_are_not():
    at, order = "blocks.0.mlp.", np.arange(10)[::-1]
    changed = {at + name: PLAIN.weights[at + name][..., order] for name in ("W_in", "b_in", "W_gate", "b_gate")}
    changed |= {at + "W_out": PLAIN.weights[at + "W_out"][order]}
    both = held(changed)
    assert both.divergences and all(each.cause.harmless for each in both.divergences)
    alone = held({at + "W_out": changed[at + "W_out"]})
    assert not alone.first_divergence.cause.harmless


def test_of_a_site_that_holds_nothing_is_explained():
    signals = capture(PLAIN, IDS) | inputs(IDS)
    asked = Case(AT + "out", signals, PLAIN, None, PLAIN.spec, 1e-6)
    assert (diagnose(asked, HYPOTHESES).cause, diagnose(asked, HYPOTHESES).tried) == (None, ())


def test_a_signal_is_clipped_where_several_numbers_stand_at_the_bound():
    signals = capture(PLAIN, IDS) | inputs(IDS)
    right = signals[AT + "out"]
    ordered = np.sort(np.abs(right).ravel())
    for beyond, named in ((4, True), (1, False)):
        bound = float(ordered[-beyond - 1] + ordered[-beyond]) / 2
        found = np.clip(right, -bound, bound)
        case = Case(AT + "out", signals | {AT + "out": found}, PLAIN, None, PLAIN.spec, 1e-9)
        cause = diagnose(case, LOST).cause
        assert (cause is not None and cause.words.startswith("clipped at ±")) == named
