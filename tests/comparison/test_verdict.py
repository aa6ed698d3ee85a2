"""The verdict's line: what was found, and what was not compared or could not have been seen."""

from __future__ import annotations

import pytest

from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.probes import GIVEN
from llmtrace.comparison.record import Candidate, Comparison, Difference, Divergence, RunPrompt, SiteError
from llmtrace.comparison.shortfall import held
from llmtrace.comparison.verdict import judged
from llmtrace.errors import OptionError
from llmtrace.trace import ModelInfo

INFO = ModelInfo("model.gguf", "llamacpp", "llama.cpp")
SITE = SiteError("blocks.0.attn.z", "holds", 1e-7, 1e-7, 0.5)
WRONG = Tensor("embed.W_E", "float32", 4.6e-3, 0.0, 4.6e-3, False, "only vocab 40000 differs")


def candidate(coarser=(), **fields):
    return judged(Candidate(INFO, "agrees", "", sites=(SITE,), **fields), 2, coarser)


def test_a_weight_that_is_wrong_and_that_no_prompt_showed_stands_in_the_first_line():
    assert candidate(tensors=(WRONG,)).headline == (
        "agrees: 1 site on 2 prompts, none beyond what rounding explains; but embed.W_E: only vocab 40000 differs, which nothing here showed"
    )
    both = candidate(tensors=(WRONG, WRONG, WRONG), spec=(Difference("ln_final.eps", "1e-05", "1e-06"),)).headline
    assert (
        "; but its file says ln_final.eps 1e-06 instead of 1e-05, and embed.W_E: only vocab 40000 differs and 2 more weights, "
        in both
    )


def test_what_could_not_have_been_seen_stands_there_where_it_is_much():
    assert "; at blocks.0.attn.z a change of less than 50% would not be seen" in candidate(resolution=0.5).headline
    assert "would not be seen" not in candidate(resolution=0.09).headline


def test_tokens_that_were_not_compared_stand_there_and_ids_that_were_given_are_a_note():
    lacking = candidate(tokens_not_compared="the reference has no tokenizer")
    assert lacking.headline.endswith("; tokens not compared: the reference has no tokenizer")
    assert lacking.notes == ()
    given = candidate(tokens_not_compared=GIVEN, notes=("another",))
    assert given.headline == candidate().headline
    assert given.notes == (f"Tokens were not compared: {GIVEN}.", "another")
    fault = Divergence("blocks.0.attn.z", (), "code", 1.0, 1.0, 0, 1e-6, None, None)
    wrong = candidate(tokens_not_compared="the reference has no tokenizer", divergences=(fault,))
    assert "tokens" not in wrong.headline and wrong.notes[0].startswith("Tokens were not compared: ")


def test_all_formats_that_explain_are_named():
    tensors = tuple(
        Tensor(f"blocks.{n}.mlp.W_in", kind, 0.1, 0.1, 0.1, True)
        for n, kind in enumerate(("Q4_1", "Q4_1", "Q8_0", "Q4_0"))
    )
    assert candidate(tensors=tensors).headline.startswith("within what Q4_1, Q8_0 and Q4_0 explain: ")


KEPT = Outputs(1, 20, 0.01, 0.02, 3, 0.9, 0.1)
LESS = Outputs(2, 20, 0.01, 0.02, 3, 0.8, 0.1)


def test_a_candidate_that_keeps_too_few_predictions_falls_short_and_does_not_pass():
    comparison = Comparison(INFO, (RunPrompt("1", "a"), RunPrompt("2", "b")), (candidate(outputs=(KEPT, LESS)),))
    assert comparison.passed and held(comparison, 0.8).passed
    (found,) = held(comparison, 0.95).candidates
    assert found.headline.startswith(
        "falls short: 80.0% of the predictions of prompt 3 stay the same, and 95.0% was asked for; agrees: "
    )
    assert (found.passed, found.verdict) == (False, "agrees")
    assert found.headline.startswith(f"falls short: {found.shortfall}; ")
    assert not held(comparison, 0.95).passed


def test_of_a_candidate_without_predictions_none_stays_the_same():
    comparison = Comparison(INFO, (RunPrompt("1", "a"),), (candidate(),))
    assert held(comparison, 0).passed
    assert "no prediction could be compared" in held(comparison, 0.5).candidates[0].headline


@pytest.mark.parametrize("least", [float("nan"), -0.1, 95])
def test_a_share_that_is_none_is_refused(least):
    with pytest.raises(OptionError, match="from 0 to 1"):
        held(Comparison(INFO, (RunPrompt("1", "a"),), (candidate(),)), least)


def test_records_say_their_verdict_in_a_line():
    found = candidate()
    assert repr(found) == f"<Candidate model.gguf: {found.headline}>"
    comparison = Comparison(INFO, (RunPrompt("1", "a"),), (found, found))
    assert str(comparison).splitlines() == [f"model.gguf: {found.headline}"] * 2
    assert repr(comparison).startswith("<Comparison with model.gguf: model.gguf: agrees: ")
