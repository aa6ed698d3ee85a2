"""`llmtrace lens` says what each point of the residual stream would predict."""

from __future__ import annotations

import pytest

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


def test_its_document_knows_what_the_hand_built_model_knows_when(cli, validate):
    document = cli("lens", MODEL, PROMPT, "--json").document
    validate("lens", document)
    assert document["target"]["text"] == "e"
    ranks = {layer["site"]: layer["target_rank"] for layer in document["layers"]}
    assert ranks["blocks.1.resid_post"] == 1
    assert ranks["blocks.0.resid_post"] > 1  # nothing has been written to the output channels there
    before = document["layers"][0]
    assert [each["probability"] for each in before["top"]] == pytest.approx([1 / 16] * 5)


def test_position_target_and_top_are_passed_on(cli):
    args = ["--position", "-2", "--target", "o", "--top", "2", "--json"]
    document = cli("lens", MODEL, PROMPT, *args).document
    assert (document["position"], document["target"]["text"]) == (9, "o")
    assert {len(layer["top"]) for layer in document["layers"]} == {2}
    by_id = cli("lens", MODEL, PROMPT, "--position", "-2", "--target-id", "15", "--top", "2", "--json").document
    assert by_id == document


def test_the_table_has_a_row_a_point(cli):
    out = cli("lens", MODEL, PROMPT).out
    assert all(f"blocks.{layer}.resid_{point}" in out for layer in (0, 1) for point in ("mid", "post"))


def test_top_outside_the_vocabulary_is_one_line(cli):
    assert "16" in cli("lens", MODEL, PROMPT, "--top", "17").error
    assert "16" in cli("lens", MODEL, PROMPT, "--top", "0").error


def test_small_probabilities_keep_their_digits_and_ties_are_spans(cli):
    out = cli("lens", MODEL, PROMPT, "--target", "a").out
    assert 'target "a"; predicted: "e" (probability 1.00)' in out
    assert "9.19e-07" in out
    assert "1-16" in out
    assert "0.0%" not in out
    assert 'target "e", the predicted token' in cli("lens", MODEL, PROMPT).out
