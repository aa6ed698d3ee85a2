"""The rest of the report in a real browser: tokens, prompts, budget, candidates; hostile texts, size, other media."""

from __future__ import annotations

import re
import statistics

import pytest
from attrs import evolve

from llmtrace.comparison.budget import Distance
from llmtrace.comparison.formats import Tensor
from llmtrace.view.comparison import comparison_page
from tests.view.comparisons import comparison
from tests.view.documents import HOSTILE
from tests.view.reading import cells, near, number, sites, strip

pytestmark = pytest.mark.browser


def test_the_strip_shows_every_token_s_errors(tab, document):
    assert tab.page.get_by_label("site", exact=True).input_value() == "blocks.1.resid_post"
    for button, key in (("inherited error", "inherited_errors"), ("local error", "local_errors")):
        tab.page.locator(".strip .toggles button", has_text=button).click()
        for site, prompt in (("blocks.1.resid_post", 0), ("blocks.2.resid_post", 1)):
            tab.page.get_by_label("site", exact=True).select_option(site)
            tab.page.get_by_label("prompt", exact=True).select_option(str(prompt))
            expected = strip(document, site, prompt)[key]
            assert tab.numbers() == pytest.approx(expected, rel=1e-3)
            below = [number(text) for text in tab.page.locator(".token .number").all_inner_texts()]
            assert below == pytest.approx(expected, rel=0.06)
            shades = [
                int(chip.get_attribute("class").split("p")[-1]) for chip in tab.page.locator(".token .chip").all()
            ]
            assert shades == pytest.approx([32 * each / max(expected) for each in expected], abs=0.51)


@pytest.mark.parametrize("prompt", [0, 1])
def test_the_strip_says_how_large_the_reference_s_stream_is(tab, document, prompt):
    site = "blocks.1.resid_post"
    (norms,) = [each["norms"] for each in document["norms"] if (each["site"], each["prompt"]) == (site, prompt)]
    tab.page.get_by_label("prompt", exact=True).select_option(str(prompt))
    for token, norm in enumerate(norms):
        tab.token(token).click()
        told = tab.page.locator(".strip .told").inner_text().replace("\n", " ")
        size, times = re.search(r"in the reference ([\d.]+), ([\d.]+) × the median", told).groups()
        assert float(size) == pytest.approx(norm, rel=1e-3)
        assert float(times) == pytest.approx(norm / statistics.median(norms), rel=0.06)


def test_a_worst_token_is_shown_in_its_prompt_and_a_layer_goes_with_its_site(tab, document):
    tab.page.locator('tr[data-site="blocks.3.attn.q"]').click()
    assert tab.page.get_by_label("site", exact=True).input_value() == "blocks.3.resid_post"
    tab.page.locator(".worst button").nth(2).click()
    worst = sites(document)["blocks.3.attn.q"]["worst_tokens"][2]
    assert tab.target() == worst["token"]
    assert tab.page.get_by_label("prompt", exact=True).input_value() == str(worst["prompt"])
    tab.page.locator('tr[data-site="logits"]').click()
    assert tab.page.get_by_label("site", exact=True).input_value() == "logits"


def test_the_plot_below_the_tokens_is_read_and_chosen_by_pointer(tab, document):
    errors = strip(document, "blocks.1.resid_post", 0)
    plot = tab.page.locator(".strip svg.strip")
    plot.scroll_into_view_if_needed()
    at = {"x": 132 + 18 * 3.9, "y": 60}
    plot.hover(position=at)
    near(tab.page.locator(".tip .exact").inner_text(), errors["inherited_errors"][3], 4)
    plot.click(position=at)
    assert tab.target() == 3


def test_the_keyboard_stays_where_it_is_in_the_strip(tab):
    tab.token(0).focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Enter")
    assert tab.target() == 1
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Enter")
    assert tab.target() == 2


def test_prompts_have_their_results_and_what_they_come_to(tab, document):
    (candidate,) = document["candidates"]
    rows = cells(tab, "prompts")
    for row, outputs, errors in zip(rows, candidate["outputs"], candidate["by_prompt"], strict=True):
        assert row[0] == f"prompt {outputs['prompt']}"
        assert row[1] == str(outputs["tokens"])
        near(row[2], outputs["mean_kld"], 3)
        near(row[3], outputs["worst_kld"], 3)
        assert number(row[4]) == pytest.approx(100 * outputs["same_top"], abs=0.051)
        assert number(row[5]) == pytest.approx(100 * outputs["largest_shift"], abs=0.0051)
        near(row[6], errors["times"])
        assert row[7] == errors["site"]
        near(row[8], errors["inherited_error"])
    spread = {each["quantity"]: each for each in candidate["spread"]}
    for row, key in zip(
        cells(tab, "prompts", "tfoot"), ("mean", "deviation", "standard_error", "least", "most"), strict=True
    ):
        near(row[2], spread["mean_kld"][key], 3)
        near(row[6], spread["times"][key])
        near(row[8], spread["inherited_error"][key])


def test_a_prompt_of_the_table_is_opened_token_by_token(tab):
    tab.page.get_by_role("button", name="prompt 1", exact=True).click()
    assert tab.page.get_by_label("prompt", exact=True).input_value() == "1"


def test_tables_say_what_differs_besides(tab, document):
    (candidate,) = document["candidates"]
    assert cells(tab, "differences") == [["prompt 0", "0", "0", "<bos>", "The", "'<bos>' is not put in front"]]
    assert cells(tab, "spec") == [["blocks.*.attn.rotary.theta", "500,000", "10,000", "0 … 3"]]
    assert cells(tab, "nearer") == [["logits", "1.0e−7", "2.0e−2", "the reference"]]
    assert cells(tab, "flips") == [["blocks.0.mlp.expert_index", "prompt 0", "2", "1", "3.0e−4", "1 of 1"]]
    tensors = cells(tab, "tensors")
    assert tensors[0][0] == "blocks.1.attn.W_V"
    assert "not explained: rows permuted" in tensors[0][-1]
    assert [row[0] for row in tensors[1:]] == [f"blocks.{at}.attn.W_V" for at in (3, 2, 0)]
    near(tensors[1][2], candidate["tensors"][3]["relative_error"])
    assert tensors[1][3:6] == ["1.0e−1", "1.1", "9.0e−2"]  # what its format costs, and the median of its kind
    assert "a note about the candidate" in tab.page.locator(".notes").first.inner_text()


def test_the_budget_ranks_weights_by_their_cost_and_says_that_costs_do_not_add_up(tab, document):
    budget = document["candidates"][0]["budget"]
    assert tab.page.locator(".budget .headline").inner_text() == budget["headline"]
    sums, swaps = (
        [row.locator("td").all_inner_texts() for row in each.locator("tbody tr").all()]
        for each in tab.page.locator(".budget table").all()
    )
    near(sums[0][1], budget["total"], 3)
    for row, key in zip(sums[1:], ("together", "candidate", "runtime"), strict=True):
        near(row[1], budget[key]["kl"], 3)
        assert number(row[3]) == pytest.approx(100 * budget[key]["same_top"], abs=0.06)
    assert sums[1][2] == "+40 % of the sum: costs do not add up"
    lengths = tab.page.evaluate(
        "[...document.querySelectorAll('.budget .track > span')].map((bar) => bar.getBoundingClientRect().width)"
    )
    costs = [swap["distance"]["kl"] for swap in budget["swaps"]]
    track = tab.page.locator(".budget .track").first.bounding_box()["width"]
    assert lengths == pytest.approx([track * cost / costs[0] for cost in costs], abs=0.1)
    for rank, (row, swap) in enumerate(zip(swaps, budget["swaps"], strict=True), 1):
        assert row[:3] == [str(rank), swap["names"][0], swap["stored"]]
        kl, error = row[4].split(" ± ")
        near(kl, swap["distance"]["kl"], 3)
        near(error, swap["distance"]["kl_error"], 1)
        assert number(row[5]) == pytest.approx(100 * swap["share"], abs=0.06)
        assert number(row[6]) == pytest.approx(100 * swap["cumulative"], abs=0.06)
        near(row[7], swap["bytes"] / 2**20, 3)
        near(row[8], swap["kl_per_mebibyte"])
        near(row[9], swap["relative_error"])
    assert tab.page.locator(".budget .notes").inner_text() == "logits.W_U: It is tied.\nThe costs do not add up."


def test_a_long_budget_is_folded_after_the_dearest_and_costs_less_than_its_sum_where_errors_cancel(show):
    budget = comparison(layers=18).candidates[0].budget
    tab = show(
        comparison_page(comparison(budget=evolve(budget, together=Distance(0.75 * budget.total, None, 0.9))).to_json())
    )
    assert "−25 % of the sum: costs do not add up" in tab.page.locator(".budget table").first.inner_text()
    assert tab.page.locator(".budget summary").inner_text() == "3 more"
    assert tab.page.locator(".budget table").nth(2).is_hidden()
    tab.page.locator(".budget summary").press("Enter")
    shown = [row[:2] for row in cells(tab, "budget")[4:]]
    assert shown == [[str(at + 1), f"blocks.{at}.mlp.W_out"] for at in range(18)]


def test_a_budget_on_a_text_has_perplexities_too(show):
    made = comparison(layers=2)
    budget = made.candidates[0].budget
    told = Distance(0.02, 0.001, 0.9, -0.0123, 0.002, 0.034, 15.4321)
    swaps = tuple(evolve(swap, distance=told) for swap in budget.swaps)
    budget = evolve(budget, context=512, perplexity=14.5, swaps=swaps, together=told, candidate=None, runtime=None)
    tab = show(comparison_page(comparison(layers=2, budget=budget).to_json()))
    sums, swapped = (
        [row.locator("td").all_inner_texts() for row in each.locator("tbody tr").all()]
        for each in tab.page.locator(".budget table").all()
    )
    assert sums[0][4] == "14.500"
    assert sums[2][-3:] == swapped[0][-3:] == ["15.432", "−1.23e−2 ± 2e−3", "3.40 %"]
    assert sums[3][1:] == ["–", "its logits cannot be compared", "–", "–", "–", "–"]
    assert "on 2 chunks of 512 tokens" in tab.page.locator(".budget > header").inner_text()


def test_weights_that_are_the_reference_s_own_are_folded_away_and_a_fine_resolution_is_no_zero(show):
    same = (Tensor("embed.W_E", "float32", 0.0, 0.0, 0.0, True),)
    tab = show(comparison_page(comparison(tensors=same, resolution=5.84e-7).to_json()))
    assert "1 compared, all the reference’s own" in tab.page.locator(".tensors > header").inner_text()
    assert tab.page.locator(".tensors table").is_hidden()
    tab.page.locator(".tensors summary").click()
    assert cells(tab, "tensors")[0][0] == "embed.W_E"
    assert "less than 5.8e−7 would not be seen" in tab.page.locator(".facts").inner_text()


def test_mechanisms_are_told_motif_by_motif_and_prompt_by_prompt(tab):
    said = tab.page.locator(".mechanisms .headline").inner_text()
    assert said == "OTHER REASONS: 95% of the predictions are the same, but induction is lost"
    motif, prompt = cells(tab, "mechanisms")
    assert motif[:4] == ["induction", "0.870", "1 of 2", "a1.h0 0.900 → 0.200"]
    assert motif[4:] == ["a1.h0", "a2.h1, a2.h2, a3.h0 and 1 more"]
    assert prompt[:4] == ["prompt 0", "alti", "0.912", "0.310 at 3"]
    assert prompt[4:] == ["0.950", "1.25 at blocks.2.resid_post", "blocks.1.resid_post, nowhere"]
    assert "a note about mechanisms" in tab.page.locator(".mechanisms .notes").inner_text()


def test_mechanisms_of_each_prompt_stand_in_its_own_row(show):
    found = comparison().candidates[0].mechanisms
    (lens,) = found.lens
    both = evolve(found, lens=(lens, evolve(lens, prompt=1, correlation=0.5, settles_reference="")))
    tab = show(comparison_page(comparison(mechanisms=both).to_json()))
    _, first, second = cells(tab, "mechanisms")
    assert (first[1], first[4], first[6]) == ("alti", "0.950", "blocks.1.resid_post, nowhere")
    assert second[:5] == ["prompt 1", "–", "–", "–", "0.500"]
    assert second[6] == "nowhere, nowhere"


def test_candidates_are_chosen_in_tabs_and_in_the_matrix(show):
    document = comparison(names=("a/model.gguf", "b/model.gguf")).to_json()
    tab = show(comparison_page(document))
    assert tab.page.locator("section.matrix th[scope=row]").all_inner_texts() == ["a/model.gguf", "b/model.gguf"]
    for quantity in ("mean_kld", "same_top", "inherited_error"):
        tab.page.get_by_label("number").select_option(quantity)
        for row, candidate in zip(cells(tab, "matrix"), document["candidates"], strict=True):
            results = candidate["outputs"] if quantity != "inherited_error" else candidate["by_prompt"]
            for shown, result in zip(row[1:3], results, strict=True):
                value = result[quantity]
                assert number(shown) == pytest.approx(100 * value if quantity == "same_top" else value, rel=6e-2)
            (spread,) = [each for each in candidate["spread"] if each["quantity"] == quantity]
            mean, error = map(number, row[0].split(" ± "))
            scale = 100 if quantity == "same_top" else 1
            assert (mean, error) == pytest.approx((scale * spread["mean"], scale * spread["standard_error"]), rel=6e-2)
            near(row[3].removesuffix(" %"), scale * spread["deviation"])
            assert [number(each) for each in row[4].split(" … ")] == pytest.approx(
                [scale * spread["least"], scale * spread["most"]], rel=6e-2
            )
            assert row[5] == "2"
    tab.page.get_by_label("number").select_option("same_top")
    heats = tab.page.locator(".matrix .heat").all()
    kept = [number(heat.inner_text()) for heat in heats]
    shades = [int(heat.get_attribute("class").removeprefix("heat p")) for heat in heats]
    assert [at for _, at in sorted(zip(kept, range(4), strict=True))] == sorted(range(4), key=lambda at: -shades[at])
    first = tab.page.locator("section.detail .numbers").inner_text()
    tab.page.get_by_role("tab", name="b/model.gguf").click()
    assert tab.page.locator("h2.name").inner_text().endswith("b/model.gguf against checkpoint")
    assert tab.page.locator("section.detail .numbers").inner_text() != first
    tab.page.get_by_role("tab", name="b/model.gguf").press("ArrowLeft")
    assert tab.page.locator("h2.name").inner_text().endswith("a/model.gguf against checkpoint")
    tab.page.get_by_role("button", name="b/model.gguf, prompt 1").click()
    assert tab.page.locator("h2.name").inner_text().endswith("b/model.gguf against checkpoint")
    assert tab.page.get_by_label("prompt", exact=True).input_value() == "1"


def test_hostile_tokens_are_shown_and_do_nothing(show):
    document = comparison(
        prompts=(HOSTILE, HOSTILE[::-1]), names=("</script><b>.gguf",), headline="<img src=x>\u202e"
    ).to_json()
    tab = show(comparison_page(document))
    shown = tab.page.locator(".token .chip").all_inner_texts()
    assert shown[0] == "</script><img␣src=x␣onerror=alert(1)>"
    assert shown[1:6] == ["\\u202eevil\\u202c", "\\x1b[31mred\\x1b[0m", "\\ud83d", "\\x00", "a⏎⇥b"]
    assert tab.page.locator("img, b b").count() == 0
    assert tab.page.locator("p.headline").first.inner_text() == "<img src=x>\\u202e"
    for row in tab.page.locator(".worst button").all():
        row.click()


def test_half_a_thousand_tokens_of_thirty_layers_stay_small_and_quick(show):
    words = tuple(f" word{place}" for place in range(512))
    document = comparison(layers=30, prompts=(words,)).to_json()
    html = comparison_page(document)
    assert len(html.encode()) < 5 * 1024**2
    tab = show(html)
    tab.page.locator('tr[data-site="blocks.17.mlp.out"]').click(timeout=5000)
    tab.token(300).click(timeout=5000)
    assert tab.target() == 300
    tab.token(290).hover()
    expected = strip(document, "blocks.17.resid_post", 0)["inherited_errors"][290]
    assert number(tab.page.locator(".tip .exact").inner_text()) == pytest.approx(expected, rel=1e-3)
    tab.page.set_viewport_size({"width": 1500, "height": 1000})
    over = "[...document.querySelectorAll('.picture .scroll, .curve .scroll')].filter((node) => node.scrollWidth > node.clientWidth + 1).length"
    assert tab.page.evaluate(over) == 0


@pytest.mark.parametrize("width", [1500, 1240, 900, 620])
def test_the_page_is_never_wider_than_the_window(show, document, width):
    tab = show(comparison_page(document))
    tab.page.set_viewport_size({"width": width, "height": 900})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_candidate_that_shows_nothing_of_it_has_empty_places_and_no_complaint(show):
    bare = comparison(
        prompts=(("a", "b"),), by_token=(), outputs=(), by_prompt=(), tokens=(), spec=(), divergences=(), tensors=(), flips=(), nearer=(), notes=(), budget=None, mechanisms=None,
    )  # fmt: skip
    tab = show(comparison_page(bare.to_json()))
    assert "shows neither the stream" in tab.page.locator("section.strip").inner_text()
    assert tab.page.locator("section.tensors, section.spec, section.faults, section.flips").count() == 0
    assert cells(tab, "prompts") == [["prompt 0", *["–"] * 8]]


def test_forced_colours_and_print_keep_what_the_page_says(show, document):
    tab = show(comparison_page(document), forced_colors="active")
    shades = "getComputedStyle(document.querySelector('.token .chip')).forcedColorAdjust"
    assert tab.page.evaluate(shades) == "none"
    bar = "getComputedStyle(document.querySelector('.bar > span')).backgroundColor"
    assert tab.page.evaluate(bar) not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    tab.page.emulate_media(media="print")
    tab.page.set_viewport_size({"width": 760, "height": 900})
    assert tab.page.locator(".finding").is_hidden()
    assert tab.page.locator("table.list tbody tr:visible").count() == 40
    assert tab.page.evaluate("getComputedStyle(document.querySelector('.sites .scroll')).maxHeight") == "none"
