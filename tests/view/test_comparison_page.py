"""The report as a whole in a real browser: where its parts stand, which keys reach them, what it says of rare cases; print."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from attrs import evolve

from llmtrace.comparison.record import Difference
from llmtrace.comparison.tokens import TokenDifference
from llmtrace.view.comparison import comparison_page
from tests.view.comparisons import comparison
from tests.view.reading import cells, number

pytestmark = pytest.mark.browser

TOLD = (0.5, 1.0, 9.96, 99.4, 99.7, 123.0, 0.0, -0.02)


def with_sites(change, **fields):
    """A comparison whose sites are changed one by one."""
    made = comparison(**fields)
    (candidate,) = made.candidates
    return evolve(made, candidates=(evolve(candidate, sites=tuple(map(change, candidate.sites))),))


def boxes(tab):
    return [tab.page.locator(part).bounding_box() for part in ("section.sites", "section.picture", "section.detail")]


def test_list_map_and_detail_stand_side_by_side_and_never_on_one_another(show):
    words = tuple(f" word{place}" for place in range(40))
    tab = show(comparison_page(comparison(layers=30, prompts=(words,)).to_json()))
    tab.page.set_viewport_size({"width": 1400, "height": 900})
    sites, picture, detail = boxes(tab)
    assert sites["x"] + sites["width"] < picture["x"] < picture["x"] + picture["width"] < detail["x"]
    assert sites["y"] == pytest.approx(picture["y"], abs=1) == pytest.approx(detail["y"], abs=1)
    cut = "[...document.querySelectorAll('.bench .scroll')].filter((node) => node.scrollWidth > node.clientWidth + 1).length"
    assert tab.page.evaluate(cut) == 0
    tab.page.set_viewport_size({"width": 1240, "height": 900})
    sites, picture, detail = boxes(tab)
    assert max(sites["x"] + sites["width"], detail["x"] + detail["width"]) < picture["x"]
    assert sites["y"] + sites["height"] < detail["y"]
    tab.page.set_viewport_size({"width": 900, "height": 900})
    sites, picture, detail = boxes(tab)
    assert sites["y"] + sites["height"] < detail["y"] < detail["y"] + detail["height"] < picture["y"]


@pytest.mark.parametrize("layers", [2, 29, 30, 200])
def test_no_label_below_the_map_runs_into_the_next(show, layers):
    tab = show(comparison_page(comparison(layers=layers).to_json()))
    tab.page.set_viewport_size({"width": 1400, "height": 900})
    ends = tab.page.evaluate(
        """[...document.querySelectorAll('.picture text.axis')].filter((text) => text.textContent && text.textContent !== 'layer')
             .map((text) => text.getBoundingClientRect()).map(({ left, right }) => [left, right])"""
    )
    assert len(ends) > 2
    assert all(right < left for (_, right), (left, _) in pairwise(ends))


def test_a_switch_of_the_curves_keeps_the_keyboard_and_goes_where_there_is_no_layer(tab):
    switch = tab.page.locator(".curve .toggles button").nth(1)
    assert switch.inner_text() == "only attn.v"
    switch.press("Enter")
    assert tab.page.evaluate("document.activeElement.textContent") == "only attn.v"
    assert switch.get_attribute("aria-pressed") == "true"
    assert tab.page.locator(".curve .legend").inner_text().split("\n")[-1] == "rounding explains"
    tab.page.locator('tr[data-site="logits"]').click()
    assert tab.page.locator(".curve .toggles button").all_inner_texts() == ["stream and blocks"]
    assert "inherited by the stream" in tab.page.locator(".curve .legend").inner_text()
    tab.page.locator('tr[data-site="blocks.2.mlp.out"]').click()
    assert tab.page.locator('.curve .toggles button[aria-pressed="true"]').inner_text() == "only mlp.out"


def test_a_candidate_that_is_come_back_to_is_as_it_was_left(show):
    tab = show(comparison_page(comparison(names=("a.gguf", "b.gguf")).to_json()))
    tab.page.locator('tr[data-site="blocks.3.mlp.out"]').click()
    tab.page.get_by_label("Filter sites by name").fill("mlp.out")
    tab.page.get_by_role("tab", name="b.gguf").click()
    assert tab.page.locator(".detail h2").inner_text() == "blocks.1.attn.v"
    assert tab.page.get_by_label("Filter sites by name").input_value() == ""
    tab.page.get_by_role("tab", name="a.gguf").click()
    assert tab.page.locator(".detail h2").inner_text() == "blocks.3.mlp.out"
    assert tab.page.locator("table.list tbody tr").count() == 4


def test_a_candidate_that_falls_short_is_not_said_to_be_well(show):
    short = "50.0% of the predictions of prompt 1 stay the same, and 95.0% was asked for"
    fields = {"verdict": "within_precision", "divergences": (), "tokens": (), "shortfall": short}
    tab = show(comparison_page(comparison(**fields).to_json()))
    assert tab.page.locator("h1 .verdict.failed").inner_text() == "✗ falls short"
    tab = show(comparison_page(comparison(**fields | {"shortfall": ""}).to_json()))
    assert tab.page.locator("h1 .verdict").inner_text() == "≈ within precision"
    assert tab.page.locator(".verdict.failed").count() == 0


def test_infinite_errors_come_first_and_what_was_not_judged_comes_last(show):
    def change(site):
        if site.site == "blocks.2.resid_post":
            return evolve(site, local_error=math.inf, worst_token_error=math.inf)
        return evolve(site, local_error=math.inf) if site.status == "unchecked" else site

    tab = show(comparison_page(with_sites(change).to_json()))
    tab.page.locator("table.list th button[data-order=local]").click()
    rows = cells(tab, "sites")
    assert [row[1] for row in rows[:1] + rows[-4:]] == ["∞", "–", "–", "–", "–"]
    assert rows[0][0].endswith("blocks.2.resid_post")
    tab.page.locator("table.list tbody tr").first.click()
    told = tab.page.locator(".detail .numbers dd").all_inner_texts()
    assert (told[0], told[4], told[5]) == ("∞", "∞", "∞")
    assert "1 at ∞: at the upper edge" in tab.page.locator(".curve .legend").inner_text()
    tops = [float(dot.get_attribute("y")) for dot in tab.page.locator(".curve rect.dot:not(.sample *)").all()]
    assert tops[2] == min(tops) == -3
    assert tab.page.locator(".picture .toggles button").all_inner_texts()[2] == "× rounding"


@pytest.mark.parametrize("every", [True, False])
def test_tokens_that_are_infinitely_off_are_the_darkest_and_are_drawn(show, every):
    made = comparison()
    (candidate,) = made.candidates
    strips = tuple(
        evolve(each, inherited_errors=tuple(math.inf if every or at == 1 else 0.25 for at in range(len(each.inherited_errors))))
        for each in candidate.by_token
    )  # fmt: skip
    tab = show(comparison_page(evolve(made, candidates=(evolve(candidate, by_token=strips),)).to_json()))
    assert tab.page.locator(".token .chip").nth(1).get_attribute("class") == "chip p32"
    count = 5 if every else 1
    assert f"{count} at ∞: at the upper edge" in tab.page.locator(".strip .legend").last.inner_text()
    assert tab.page.locator(".strip svg.strip circle.dot").count() == 5
    tab.token(1).click()
    assert "inherited error ∞" in tab.page.locator(".strip .told").inner_text().replace("\n", " ")


def test_nothing_that_is_off_is_said_and_infinity_is_not_nothing(show):
    def change(error):
        return lambda site: evolve(site, local_error=error, inherited_error=0.0, status="holds")

    tab = show(comparison_page(with_sites(change(0.0)).to_json()))
    assert tab.page.locator(".curve .of").inner_text() == "Nothing is off by anything here."
    tab = show(comparison_page(with_sites(change(math.inf)).to_json()))
    assert tab.page.locator(".curve svg.curves rect.dot").count() == 4


def test_a_fault_names_its_prompt_where_there_are_several(show, tab):
    heads = ["site", "blocks", "local", "rounding", "own weights", "inherited", "why"]
    assert tab.page.locator(".faults th").all_inner_texts() == [*heads[:2], "prompt", *heads[2:]]
    assert cells(tab, "faults")[0][2] == "prompt 0"
    single = show(comparison_page(comparison(prompts=(("a", "b"),)).to_json()))
    assert single.page.locator(".faults th").all_inner_texts() == heads
    assert "numbers are of" not in single.page.locator(".faults > header").inner_text()


def test_a_fault_is_told_alike_in_the_table_and_beside_its_site(show):
    made = comparison()
    (candidate,) = made.candidates
    (fault,) = candidate.divergences
    known = evolve(fault, cause=evolve(fault.cause, before=math.inf, harmless=True))
    unknown = evolve(
        fault,
        site="blocks.2.attn.q",
        layers=(2, 3),
        cause=None,
        tried=fault.tried[:1],
        factor="8 = √d_head",
        kind="weights",
    )
    faults = evolve(made, candidates=(evolve(candidate, divergences=(known, unknown)),))
    tab = show(comparison_page(faults.to_json()))
    whys = [row[-1] for row in cells(tab, "faults")]
    code = "the candidate computes something else; rotary-base: ∞ → 3.0e−7; 7 explanations tried; harmless in this run"
    assert whys == [
        f"rotary base 10,000 instead of 500,000 · {code}",
        "unexplained · its weights are others; 5 explanations tried; factor 8 = √d_head",
    ]
    assert tab.page.locator(".detail .fault").inner_text() == whys[0]
    tab.page.locator('tr[data-site="blocks.3.attn.q"]').click()  # of the same kind, in another block
    assert tab.page.locator(".detail .fault").inner_text() == whys[1]
    tab.page.locator('tr[data-site="blocks.0.attn.q"]').click()  # and in one that is right
    assert tab.page.locator(".detail .fault").count() == 0
    tab.page.locator(".faults button").nth(1).click()
    assert tab.page.locator(".detail h2").inner_text() == "blocks.2.attn.q"


@pytest.mark.parametrize("diverges", [True, False])
def test_first_is_shown_where_a_fault_entered_and_without_one_the_worst_site(show, diverges):
    made = comparison()
    (candidate,) = made.candidates
    (fault,) = candidate.divergences
    later = evolve(fault, site="blocks.2.mlp.out", layers=(2,))  # further off than the first
    faults = (fault, later) if diverges else ()
    tab = show(comparison_page(evolve(made, candidates=(evolve(candidate, divergences=faults),)).to_json()))
    worst = tab.page.locator("table.list tbody tr").first.get_attribute("data-site")
    assert worst.endswith(".mlp.out")
    assert tab.page.locator(".detail h2").inner_text() == ("blocks.1.attn.v" if diverges else worst)


def test_blocks_are_told_as_a_range_only_where_none_is_missing(show):
    said = ((0, 1, 2, 3), (0, 4, 7, 9), (1, 2), ())
    fields = tuple(Difference("blocks.*.attn.scale", "1", "2", blocks) for blocks in said)
    tab = show(comparison_page(comparison(spec=fields).to_json()))
    assert [row[3] for row in cells(tab, "spec")] == ["0 … 3", "0, 4, 7 and 1 more", "1, 2", ""]


def test_a_text_that_was_read_and_not_run_is_quoted(show):
    read = TokenDifference(None, "ﷺ and forty more letters, which are not shown", 3, None, None, None, "it stops")
    tab = show(comparison_page(comparison(tokens=(read,)).to_json()))
    assert cells(tab, "differences") == [
        ["not run: ﷺ and forty more letters…", "3", "–", "nothing more", "nothing more", "it stops"]
    ]


def test_the_head_says_what_was_run_on_what(tab):
    facts = dict(
        zip(
            tab.page.locator(".facts dt").all_inner_texts(),
            tab.page.locator(".facts dd").all_inner_texts(),
            strict=True,
        )
    )
    assert facts == {
        "reference": "/models/checkpoint · torch · float32 · shipped",
        "candidate": "model.gguf · torch · q4_0 · shipped",
        "sites": "71 judged",
        "prompts": "2, of 8 tokens",
        "resolution": "somewhere a relative change of less than 1.6 % would not be seen",
    }


def test_what_the_numbers_are_is_told_by_the_page_itself(tab):
    assert tab.page.locator(".sites .numbers").is_hidden()
    tab.page.locator(".sites summary").press("Enter")
    assert tab.page.locator(".sites .numbers dt").all_inner_texts() == [
        "local error", "own error", "inherited error", "rounding",
    ]  # fmt: skip


def test_numbers_are_written_without_a_plus_or_a_hyphen(tab):
    told = {value: tab.page.evaluate(f"errorText({value})") for value in TOLD}
    assert list(told.values()) == ["5.0e−1", "1.0", "10", "99", "1.0e2", "1.2e2", "0", "−2.0e−2"]
    times = {value: tab.page.evaluate(f"timesText({value})") for value in TOLD[:6]}
    assert [number(text) for text in times.values()] == [0.5, 1, 10, 99, 100, 123]


def test_a_budget_on_one_chunk_is_told_in_the_singular(show):
    budget = evolve(comparison().candidates[0].budget, context=512, pieces=1)
    tab = show(comparison_page(comparison(budget=budget).to_json()))
    assert "8 predictions on 1 chunk of 512 tokens" in tab.page.locator(".budget > header").inner_text()


def test_infinite_results_have_an_infinite_mean_and_a_single_one_has_no_deviation(show):
    made = comparison(names=("a.gguf", "b.gguf"))
    one, other = (evolve(each, outputs=each.outputs[:1]) for each in made.candidates)
    endless = evolve(one, by_prompt=tuple(evolve(each, times=math.inf) for each in one.by_prompt))
    tab = show(comparison_page(evolve(made, candidates=(endless, other)).to_json()))
    mean, deviation, error, least, most = (row[6] for row in cells(tab, "prompts", "tfoot"))
    assert (mean, deviation, error, least, most) == ("∞",) * 5
    for quantity, totals in (("times", ["∞ ± ∞", "∞", "∞", "∞", "∞ … ∞", "2"]), ("mean_kld", None)):
        tab.page.get_by_label("number").select_option(quantity)
        row = cells(tab, "matrix")[0]
        kld = made.to_json()["candidates"][0]["outputs"][0]["mean_kld"]
        shown = f"{kld:.2e}".replace("e-0", "e−")
        assert row == (totals or [shown, shown, "–", "–", f"{shown} … {shown}", "1"])


def test_print_fits_the_paper_and_says_what_it_leaves_out(show):
    tab = show(comparison_page(comparison(layers=30, names=("a.gguf", "b.gguf")).to_json()))
    tab.page.emulate_media(media="print")
    tab.page.set_viewport_size({"width": 720, "height": 1000})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 720
    note = "getComputedStyle(document.querySelector('.tabs'), '::after').content"
    assert "printed from their own tabs" in tab.page.evaluate(note)


def test_numbers_are_rounded_to_so_many_digits_and_never_spelled_as_javascript_does(show):
    tab = show(comparison_page(comparison().to_json()))
    cases = {
        "num(99.4, 2)": "99", "num(99.7, 2)": "100", "num(0.996, 2)": "1.0", "num(1866)": "1866", "num(999.7)": "1000",
        "num(-Infinity)": "−∞", "num(Infinity)": "∞", "num(NaN)": "–", "num(2e-5, 2)": "2.0e-5",
    }  # fmt: skip
    assert {case: tab.page.evaluate(case) for case in cases} == cases
