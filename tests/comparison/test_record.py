"""What follows from a comparison's records: the worst verdict, who has passed, where the first fault is, and what is written down of it."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from llmtrace.comparison.budget import Budget, Distance, Swap
from llmtrace.comparison.by_prompt import PromptErrors
from llmtrace.comparison.by_token import TokenErrors
from llmtrace.comparison.mechanisms import Mechanisms
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.record import Candidate, Comparison, Divergence
from llmtrace.trace import ModelInfo


def candidate(name, verdict="agrees", **fields):
    return Candidate(ModelInfo(name, "b", "c"), verdict, f"{name} {verdict}", **fields)


def divergence(site):
    return Divergence(site, (site,), "code", 0.5, math.inf, 0, 1e-6, None, None)


def comparison(*candidates):
    return Comparison(ModelInfo("reference", "b", "c"), (), candidates)


@pytest.mark.parametrize(
    ("verdicts", "worst", "passed"),
    [
        (("agrees", "agrees"), "agrees", True),
        (("agrees", "within_precision"), "within_precision", True),
        (("within_precision", "agrees"), "within_precision", True),
        (("agrees", "diverges", "within_precision"), "diverges", False),
    ],
)
def test_the_verdict_is_the_worst_and_all_must_pass(verdicts, worst, passed):
    found = comparison(*(candidate(str(at), verdict) for at, verdict in enumerate(verdicts)))
    assert (found.verdict, found.passed) == (worst, passed)
    document = found.to_json()
    assert (document["verdict"], document["passed"]) == (worst, passed)
    assert [each["passed"] for each in document["candidates"]] == [each != "diverges" for each in verdicts]


def test_a_candidate_that_keeps_too_few_predictions_has_not_passed():
    found = comparison(candidate("a"), candidate("b", shortfall="too few"))
    assert (found.verdict, found.passed) == ("agrees", False)
    assert [each.passed for each in found.candidates] == [True, False]
    assert str(found) == "a: a agrees\nb: b agrees"


def test_the_first_fault_is_the_first_of_the_first_candidate_that_has_one():
    one, two, three = (divergence(f"blocks.{layer}.attn.q") for layer in range(3))
    found = comparison(
        candidate("a"),
        candidate("b", "diverges", divergences=(two, one)),
        candidate("c", "diverges", divergences=(three,)),
    )
    assert found.first_divergence is two
    assert [each.first_divergence for each in found.candidates] == [None, two, three]
    assert comparison(candidate("a")).first_divergence is None
    first, second, _ = found.to_json()["candidates"]
    assert (first["first_divergence"], first["divergences"]) == (None, [])
    assert second["first_divergence"] == second["divergences"][0]
    assert second["first_divergence"]["site"] == "blocks.1.attn.q"
    assert second["first_divergence"]["worst_token_error"] is None, "what is not finite is null"


def test_what_comes_to_several_prompts_is_written_down_prompt_by_prompt_and_together():
    outputs = tuple(Outputs(at, 5, kld, 2 * kld, 0, 1.0, 0.0) for at, kld in enumerate((0.25, 0.75)))
    prompts = tuple(PromptErrors(at, "embed", 1e-6, 1e-6, times, None) for at, times in enumerate((1.0, 4.0)))
    one = candidate("a", outputs=outputs, by_prompt=prompts)
    (document,) = comparison(one).to_json()["candidates"]
    assert [each["mean_kld"] for each in document["outputs"]] == [0.25, 0.75]
    assert [each["times"] for each in document["by_prompt"]] == [1.0, 4.0]
    spread = {each["quantity"]: each for each in document["spread"]}
    assert set(spread) == {"mean_kld", "worst_kld", "same_top", "largest_shift", "times"}
    assert (spread["mean_kld"]["mean"], spread["times"]["mean"], spread["times"]["most"]) == (0.5, 2.5, 4.0)
    assert spread["mean_kld"]["deviation"] == pytest.approx(math.sqrt(0.125))


def test_numbers_of_many_tokens_are_written_with_four_digits_and_others_whole():
    long = 1.23456789e-5
    one = candidate("a", resolution=long, by_token=(TokenErrors("embed", 0, (long, math.nan, 1.0), ()),))
    (document,) = comparison(one).to_json()["candidates"]
    assert document["resolution"] == long
    (strip,) = document["by_token"]
    assert (strip["local_errors"], strip["inherited_errors"]) == ([1.235e-5, None, 1.0], [])


def test_of_a_budget_what_follows_is_written_down_too():
    """Half a nat for a quarter of a MiB; a type whose size is not known has no such number."""
    costs = Distance(0.5, None, 1.0)
    swaps = (
        Swap(("v",), "Q8_0", 1, 2**18, 0.1, costs, 0.5, 0.5),
        Swap(("w",), "?", 1, None, 0.1, costs, 0.5, 1.0),
    )
    budget = Budget("", 1, 1, None, None, swaps, 1.0, Distance(1.5, None, 1.0), Distance(1.25, None, 1.0), None)
    (document,) = comparison(candidate("a", budget=budget)).to_json()["candidates"]
    found = document["budget"]
    assert [each["kl_per_mebibyte"] for each in found["swaps"]] == [2.0, None]
    assert (found["excess"], found["relative_excess"], found["rest"]) == (0.5, 0.5, -0.25)
    (document,) = comparison(candidate("a", budget=evolve(budget, together=Distance(math.inf, None, 1.0)))).to_json()[
        "candidates"
    ]
    assert (document["budget"]["excess"], document["budget"]["together"]["kl"]) == (None, None)


def test_of_mechanisms_what_follows_is_written_down_too():
    alike = Mechanisms((), (), "", (), 1.0, ())
    for found in (alike, evolve(alike, findings=("x",))):
        (document,) = comparison(candidate("a", mechanisms=found)).to_json()["candidates"]
        assert document["mechanisms"]["flagged"] is found.flagged
        assert document["mechanisms"]["words"] == found.words
    assert found.flagged
