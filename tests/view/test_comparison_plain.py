"""The report of a comparison without JavaScript: what stands in its plain tables."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve

from llmtrace.view.comparison import comparison_page
from llmtrace.view.comparison_plain import MOST
from tests.view.comparisons import comparison
from tests.view.documents import HOSTILE


def shown(html):
    """What a reader without JavaScript is shown."""
    return ET.fromstring(re.search(r"<noscript>(.*?)</noscript>", html, re.DOTALL)[1])  # noqa: S314  # our own page


def tables(html):
    """The rows of every table, by caption."""
    found = shown(html).iter("table")
    return {
        "".join(table.find("caption").itertext()): [
            ["".join(cell.itertext()) for cell in row] for row in table.findall("tr")[1:]
        ]
        for table in found
    }


@pytest.fixture(scope="module")
def document():
    return comparison(names=("a.gguf", "b.onnx")).to_json()


@pytest.fixture(scope="module")
def rows(document):
    return tables(comparison_page(document))


def test_every_candidate_has_its_verdict_its_notes_and_its_worst_sites(document, rows):
    plain = shown(comparison_page(document))
    said = ["".join(each.itertext()) for each in plain.iter("p")]
    assert "note: a note about the reference" in said
    assert [each.text for each in plain.iter("h2")] == ["a.gguf against checkpoint", "b.onnx against checkpoint"]
    for name, candidate in zip(("a.gguf", "b.onnx"), document["candidates"], strict=True):
        assert candidate["headline"] in said
        by_name = {each["site"]: each for each in candidate["sites"]}
        worst = rows[f"{name}: the worst of 71 sites"]
        times = [by_name[row[0]]["local_error"] / by_name[row[0]]["tolerance"] for row in worst]
        assert times == sorted(times, reverse=True)
        assert len(worst) == MOST
        assert {row[0]: row[1] for row in worst[:5]} == {
            "blocks.1.attn.v": "violated",
            **{f"blocks.{layer}.mlp.out": "explained" for layer in range(4)},
        }
        for site, _, local, rounding, inherited in worst:
            each = by_name[site]
            expected = (each["local_error"], each["tolerance"], each["inherited_error"])
            assert [local, rounding, inherited] == [f"{error:.1e}" for error in expected]


def test_where_it_diverges_and_tokens_that_are_read_otherwise_are_told(document, rows):
    fault = document["candidates"][0]["divergences"][0]
    errors = [f"{fault[name]:.1e}" for name in ("local_error", "tolerance", "own_error", "inherited_error")]
    why = "rotary base 10,000 instead of 500,000"
    assert rows["a.gguf: where it diverges"] == [["blocks.1.attn.v", "1", *errors, why]]
    assert rows["a.gguf: tokens that are read otherwise"] == [
        ["prompt 0", "0", '"<bos>"', '"The"', "'<bos>' is not put in front"]
    ]


def test_predictions_are_told_prompt_by_prompt(document, rows):
    assert rows["b.onnx: predictions"] == [
        [f"prompt {at}", str(each["tokens"]), f"{each['mean_kld']:.1e}", f"{each['worst_kld']:.1e}", f"{each['same_top']:.1%}"]
        for at, each in enumerate(document["candidates"][1]["outputs"])
    ]  # fmt: skip


def test_the_budget_stands_weight_by_weight_the_dearest_first(document, rows):
    budget = document["candidates"][0]["budget"]
    assert rows[f"a.gguf: budget: {budget['headline']}"] == [
        ["sum of the costs", f"{budget['total']:.1e}", "–"],
        ["all weights at once", f"{budget['together']['kl']:.1e}", f"{budget['together']['same_top']:.1%}"],
        ["the candidate itself", f"{budget['candidate']['kl']:.1e}", f"{budget['candidate']['same_top']:.1%}"],
        ["the candidate, from the reference with its weights", f"{budget['runtime']['kl']:.1e}", "99.0%"],
    ]
    assert rows["a.gguf: budget, the dearest of 4 weights"] == [
        [
            f"blocks.{at}.mlp.W_out", "q4_0", f"{swap['distance']['kl']:.1e} ± {swap['distance']['kl_error']:.1e}", f"{swap['share']:.1%}",
            f"{swap['cumulative']:.1%}", "8.0e-02", "97.0%",
        ]
        for at, swap in enumerate(budget["swaps"])
    ]  # fmt: skip
    assert rows["a.gguf: budget, besides"] == [["logits.W_U: It is tied."], ["The costs do not add up."]]


def test_mechanisms_stand_motif_by_motif_and_prompt_by_prompt(rows):
    (motifs,) = [each for caption, each in rows.items() if caption.startswith("a.gguf: mechanisms: OTHER REASONS")]
    assert motifs == [["induction", "0.87", "1 of 2", "a1.h0", "a2.h1, a2.h2, a3.h0, a3.h1"]]
    assert rows["a.gguf: influence"] == [["prompt 0", "alti", "0.912", "0.31", "3"]]
    assert rows["a.gguf: lens"] == [
        ["prompt 0", "0.95", "1.25", "blocks.2.resid_post", "blocks.1.resid_post", "nowhere"]
    ]
    assert rows["a.gguf: mechanisms, besides"] == [["a note about mechanisms"]]


def test_what_was_not_asked_for_has_no_table_and_what_is_infinite_is_said():
    made = comparison(budget=None, mechanisms=None, tokens=())
    (candidate,) = made.candidates
    sites = tuple(
        evolve(each, local_error=math.inf, inherited_error=None) if each.site == "blocks.0.attn.q" else each
        for each in candidate.sites
    )
    fault = evolve(candidate.divergences[0], cause=None, own_error=None)
    made = evolve(made, candidates=(evolve(candidate, sites=sites, divergences=(fault,)),))
    rows = tables(comparison_page(made.to_json()))
    assert {caption.removeprefix("model.gguf: ") for caption in rows} == {
        "where it diverges", "the worst of 71 sites", "predictions",
    }  # fmt: skip
    assert rows["model.gguf: the worst of 71 sites"][0] == ["blocks.0.attn.q", "holds", "∞", "2.0e-06", "–"]
    ((*_, own, _, why),) = rows["model.gguf: where it diverges"]
    assert (own, why) == ("–", "unexplained (tried: rotary-base leaves 3.0e-07, rotary-style leaves 3.1e-01)")


def test_hostile_texts_stay_text():
    html = comparison_page(
        comparison(prompts=(HOSTILE, HOSTILE), names=("</noscript><b>.gguf",), headline="<img src=x>\u202e").to_json()
    )
    assert {each.tag for each in shown(html).iter()} == {"div", "p", "h2", "table", "caption", "tr", "th", "td"}
    assert "<img src=x>\\u202e" in [each.text for each in shown(html).iter("p")]
