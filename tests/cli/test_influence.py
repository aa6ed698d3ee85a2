"""`llmtrace influence` says which tokens a prediction depends on, and writes it down for other eyes."""

from __future__ import annotations

import pytest

import llmtrace

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


@pytest.mark.parametrize("method", ["alti", "dla", "attention", "rollout"])
def test_its_document_is_that_of_the_method(cli, validate, method):
    document = cli("influence", MODEL, PROMPT, "--method", method, "--json").document
    validate("influence", document)
    with llmtrace.open(MODEL) as model:
        found = model.influence(PROMPT, method=method)
    assert document["scores"] == found.scores.tolist()
    assert (document["method"], document["position"], document["target"]["text"]) == (method, 10, "e")


def test_direct_logit_attribution_finds_the_copied_token(cli):
    scores = cli("influence", MODEL, PROMPT, "--method", "dla", "--json").document["scores"]
    assert scores[4] == max(scores)
    assert scores[4] == pytest.approx(sum(scores))


def test_target_foil_and_position_are_passed_on(cli):
    args = ["--method", "dla", "--position", "8", "--json"]
    document = cli("influence", MODEL, PROMPT, *args, "--target", "a", "--foil", "b").document
    assert (document["position"], document["target"]["text"], document["foil"]["text"]) == (8, "a", "b")
    assert cli("influence", MODEL, PROMPT, *args, "--target-id", "1", "--foil-id", "2").document == document


def test_a_foil_is_refused_by_a_method_that_does_not_aim_before_the_model_is_opened(cli):
    for method in ("alti", "attention", "rollout"):
        for foil in (("--foil", "b"), ("--foil-id", "2")):
            run = cli("influence", MODEL, PROMPT, "--method", method, *foil)
            assert f"no target enters {method}" in run.error
            assert run.error.endswith("takes one: dla.")
            assert "opening" not in run.err


def test_a_target_that_is_not_predicted_stands_beside_what_is(cli):
    out = cli("influence", MODEL, PROMPT, "--method", "dla", "--target", "a").out
    assert 'predicted: "e" (probability 1.00); target: "a" (probability 9.19e-07, rank 4)' in out
    assert 'predicted: "e" (probability 1.00)\n' in cli("influence", MODEL, PROMPT, "--target", "a").out


def test_the_page_shows_the_method_direct_attribution_heads_and_the_lens(cli, tmp_path):
    run = cli("influence", MODEL, PROMPT, "--html", "x.html", "--json")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert all(f'"method":"{name}"' in page for name in ("alti", "dla", "attention"))
    assert '"points":[' in page
    for method in ("dla", "rollout"):
        cli("influence", MODEL, PROMPT, "--method", method, "--html", "y.html")
        other = (tmp_path / "y.html").read_text(encoding="utf-8")
        assert all(f'"method":"{name}"' in other for name in ("alti", "dla", "attention", method))
        assert other.index(f'"method":"{method}"') == other.index('"method":"')
    assert "wrote x.html" in run.err
    assert run.document["scores"] == cli("influence", MODEL, PROMPT, "--json").document["scores"]


def test_another_viewer_writes_by_suffix_or_by_name(cli, tmp_path):
    cli("influence", MODEL, PROMPT, "--save", "x.txt")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8").startswith("alti: what ")
    cli("influence", MODEL, PROMPT, "--save", "y.md", "--viewer", "text")
    assert (tmp_path / "y.md").read_bytes() == (tmp_path / "x.txt").read_bytes()


def test_a_viewer_that_is_not_there_is_refused_before_the_model_is_opened(cli):
    run = cli("influence", MODEL, PROMPT, "--save", "x.png")
    assert ".html" in run.error
    assert "opening" not in run.err
    assert "'txet'" in cli("influence", MODEL, PROMPT, "--save", "x", "--viewer", "txet").error
    assert "--save" in cli("influence", MODEL, PROMPT, "--viewer", "text").error


def test_the_text_names_the_target_the_sources_and_what_the_scores_mean(cli):
    out = cli("influence", MODEL, PROMPT, "--method", "dla").out
    assert 'dla: what "e" at position 10 depends on, in logits' in out
    assert "held fixed" in out
    assert "credited to no token" in out


def test_an_unknown_method_is_refused_before_the_model_is_opened(cli):
    run = cli("influence", MODEL, PROMPT, "--method", "atli")
    assert "Did you mean alti?" in run.error
    assert "opening" not in run.err


def test_a_target_that_is_no_token_is_one_line_that_says_so(cli):
    assert "'zebra'" in cli("influence", MODEL, PROMPT, "--target", "zebra").error
    assert "not one token" in cli("influence", MODEL, PROMPT, "--target", "a b").error
    assert "vocabulary" in cli("influence", MODEL, PROMPT, "--target-id", "16").error
    assert "not both" in cli("influence", MODEL, PROMPT, "--target", "a", "--target-id", "1").error
    assert "Position 11" in cli("influence", MODEL, PROMPT, "--position", "11").error


def test_colours_come_only_where_they_are_asked_for(cli):
    args = ["influence", MODEL, PROMPT, "-q"]
    assert "\x1b" not in cli(*args).out
    assert "\x1b[" in cli(*args, env={"FORCE_COLOR": "1", "NO_COLOR": None}).out
    assert "\x1b[4" not in cli(*args, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).out.replace("\x1b[4m", "")


def test_without_weights_the_page_has_what_needs_none_and_says_why(cli, tmp_path, monkeypatch):
    from llmtrace.reference import session
    from llmtrace.reference.plugin import ReferenceBackend

    class NoWeights(session.ReferenceSession):
        def __init__(self, *args):
            super().__init__(*args)
            del self.weights

    monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", NoWeights)
    claimed = tuple(each for each in ReferenceBackend.capabilities if each != "weights")
    monkeypatch.setattr(ReferenceBackend, "capabilities", claimed)
    run = cli("influence", MODEL, PROMPT, "--method", "rollout", "--html", "x.html", "--json")
    assert run.code == 0
    assert "the page has no dla: " in run.err
    assert "the page has no lens: " in run.err
    assert '"method":"attention"' in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert '"method":"dla"' not in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "--backend" in cli("influence", MODEL, PROMPT, "--method", "alti").error


def test_a_weight_that_is_missing_among_others_is_named_and_no_reader_of_weights_is_advised(cli, monkeypatch):
    """The backend reads weights, only not this one: to be told to open the model with one that reads weights would be no help."""
    from llmtrace.reference import session

    class FewWeights(session.ReferenceSession):
        def __init__(self, *args):
            super().__init__(*args)
            self.weights = {name: array for name, array in self.weights.items() if name != "blocks.1.attn.W_O"}

    monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", FewWeights)
    error = cli("influence", MODEL, PROMPT, "--method", "alti").error
    assert "The weight blocks.1.attn.W_O is not at hand (the backend has " in error
    assert "that reads weights" not in error
