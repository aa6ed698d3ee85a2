"""The report's sites, map, curve and detail in a real browser: by pointer and by keyboard, its numbers are those of the JSON."""

from __future__ import annotations

import math
import re

import pytest

from tests.view.reading import cells, detail, near, sites

pytestmark = pytest.mark.browser
GUTTER = 132


def test_the_list_has_every_site_with_its_numbers_those_beyond_rounding_first(tab, document):
    by_name, rows = sites(document), tab.page.locator("table.list tbody tr")
    assert sorted(row.get_attribute("data-site") for row in rows.all()) == sorted(by_name)
    for row in rows.all():
        each, texts = by_name[row.get_attribute("data-site")], row.locator("td").all_inner_texts()
        near(texts[2], each["inherited_error"])
        if each["status"] == "unchecked":
            assert texts[1] == texts[3] == "–"
        else:
            near(texts[1], each["local_error"])
            near(texts[3], each["local_error"] / each["tolerance"])
    signs = [row.locator(".sign").inner_text() for row in rows.all()]
    assert signs[:6] == ["▲", *["△"] * 4, ""]
    assert rows.first.get_attribute("data-site") == "blocks.1.attn.v"


@pytest.mark.parametrize(("head", "key"), [("local", "local_error"), ("inherited", "inherited_error"), ("site", None)])
def test_a_heading_orders_the_list(tab, document, head, key):
    tab.page.locator("table.list th button", has_text=re.compile(f"^{head}$")).click()
    shown = [row.get_attribute("data-site") for row in tab.page.locator("table.list tbody tr").all()]
    every = document["candidates"][0]["sites"]
    expected = (
        sorted(every, key=lambda each: -(each[key] or -1 if key == "inherited_error" else each[key])) if key else every
    )
    known = [each["site"] for each in expected if key != "inherited_error" or each[key] is not None]
    assert shown[: len(known)] == known
    assert tab.page.locator('table.list th[aria-sort="none"]').count() == 3


def test_the_list_is_filtered_by_words_and_to_what_is_beyond_rounding(tab):
    rows = tab.page.locator("table.list tbody tr")
    tab.page.get_by_label("Filter sites by name").fill("blocks.2. attn")
    names = [row.get_attribute("data-site") for row in rows.all()]
    assert len(names) == 9
    assert all(name.startswith("blocks.2.attn.") for name in names)
    tab.page.get_by_label("Filter sites by name").fill("nothing like it")
    assert rows.count() == 0
    assert tab.page.locator(".sites .of").inner_text() == "no site has this in its name"
    tab.page.get_by_label("Filter sites by name").fill("blocks.2.attn.q")
    assert tab.page.locator(".sites .of").inner_text() == "1 site, 0 beyond what rounding explains"
    tab.page.get_by_label("only those beyond rounding").check()
    assert tab.page.locator(".sites .of").inner_text() == "no such site is beyond what rounding explains"
    tab.page.get_by_label("Filter sites by name").fill("")
    tab.page.get_by_label("only those beyond rounding").check()
    assert {row.get_attribute("data-site") for row in rows.all()} == {
        "blocks.1.attn.v",
        *(f"blocks.{i}.mlp.out" for i in range(4)),
    }


def test_the_first_divergence_is_chosen_and_its_cause_told(tab):
    assert tab.page.locator(".detail h2").inner_text() == "blocks.1.attn.v"
    assert "rotary base 10,000 instead of 500,000" in tab.page.locator(".detail .fault").inner_text()
    ((site, blocks, *_, why),) = cells(tab, "faults")
    assert (site, blocks) == ("blocks.1.attn.v", "1")
    assert "7 explanations tried" in why
    tried = [row.locator("td").all_inner_texts() for row in tab.page.locator(".detail .tried tbody tr").all()]
    assert tried == [
        ["rotary-base", "rotary base 10,000 instead of 500,000 · nearest of 5", "3.0e−7"],
        ["rotary-style", "pairs of neighbours · nearest of 2", "3.1e−1"],
    ]
    tab.page.locator('tr[data-site="blocks.0.attn.q"]').click()  # which is right
    assert tab.page.locator(".detail .tried").count() == 0


@pytest.mark.parametrize("how", ["pointer", "keyboard"])
def test_a_site_of_the_list_is_chosen_and_told_whole(tab, document, how):
    name = "blocks.3.mlp.out"
    if how == "pointer":
        tab.page.locator(f'tr[data-site="{name}"]').click()
    else:
        tab.page.get_by_label("only those beyond rounding").focus()
        for _ in range(5):
            tab.page.keyboard.press("Tab")  # past the headings
        assert tab.page.evaluate("document.activeElement.textContent") == "blocks.1.attn.v"
        at = [row.get_attribute("data-site") for row in tab.page.locator("table.list tbody tr").all()].index(name)
        for _ in range(at):
            tab.page.keyboard.press("ArrowDown")
        tab.page.keyboard.press("Enter")
    site = sites(document)[name]
    assert tab.page.locator(".detail h2").inner_text() == name
    assert tab.page.locator("tr[aria-current]").get_attribute("data-site") == name
    told = detail(tab)
    for title, key in (
        ("local error", "local_error"), ("own error", "own_error"), ("inherited error", "inherited_error"), ("rounding explains", "tolerance"),
        ("worst token’s error", "worst_token_error"),
    ):  # fmt: skip
        near(told[title], site[key], 3)
    assert told["worst in prompt"] == document["prompts"][site["prompt"]]["name"]
    rows = cells(tab, "detail")
    assert len(rows) == len(site["worst_tokens"]) == 5
    for (text, where, local, inherited), worst in zip(rows, site["worst_tokens"], strict=True):
        assert where == f"prompt {worst['prompt']} {worst['token']}"
        token = document["prompts"][worst["prompt"]]["tokens"][worst["token"]]["text"]
        assert text == token.replace(" ", "␣").replace("\n", "⏎")
        near(local, worst["local_error"])
        near(inherited, worst["inherited_error"])


def test_keys_move_through_the_list_and_stop_at_its_ends(tab):
    rows = [row.get_attribute("data-site") for row in tab.page.locator("table.list tbody tr").all()]
    tab.page.locator("table.list tbody button").first.focus()
    moves = (
        ("ArrowUp", 0),
        ("PageDown", 10),
        ("ArrowDown", 11),
        ("PageUp", 1),
        ("PageUp", 0),
        ("End", -1),
        ("ArrowDown", -1),
        ("Home", 0),
    )
    for key, place in moves:
        tab.page.keyboard.press(key)
        assert tab.page.evaluate("document.activeElement.textContent") == rows[place], key


def test_the_map_is_read_and_chosen_by_pointer_and_by_keyboard(tab, document):
    by_name, box = sites(document), tab.page.locator(".picture svg.map")
    kinds = tab.page.locator(".picture svg text.row").all_text_contents()
    assert kinds[:3] == ["embed", "resid_pre", "ln1.out"]
    assert kinds[-2:] == ["ln_final.out", "logits"]
    box.scroll_into_view_if_needed()
    width = 24
    box.click(position={"x": GUTTER + 2.5 * width, "y": (kinds.index("attn.z") + 0.5) * 15})
    assert tab.page.locator(".detail h2").inner_text() == "blocks.1.attn.z"
    card = tab.page.locator(".tip").inner_text()
    assert "blocks.1.attn.z" in card
    shown = dict(
        zip(tab.page.locator(".tip dt").all_inner_texts(), tab.page.locator(".tip dd").all_inner_texts(), strict=True)
    )
    near(shown["local error"], by_name["blocks.1.attn.z"]["local_error"])
    near(shown["inherited error"], by_name["blocks.1.attn.z"]["inherited_error"])
    near(shown["× rounding"], by_name["blocks.1.attn.z"]["local_error"] / 2e-6)
    tab.page.mouse.move(0, 0)
    box.focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        tab.page.keyboard.press(key)
    assert tab.page.locator(".detail h2").inner_text() == "blocks.2.attn.out"
    assert tab.page.locator(".spoken").inner_text().startswith("blocks.2.attn.out, local error ")
    for _ in range(len(kinds)):
        tab.page.keyboard.press("ArrowUp")  # and into the column of what stands in no block
    tab.page.keyboard.press("Enter")
    assert tab.page.locator(".detail h2").inner_text() == "embed"
    assert tab.page.evaluate("document.activeElement.tagName") == "svg"


def test_the_map_s_shades_follow_the_number_that_is_chosen(tab, document):
    by_name = sites(document)

    def shade(name):
        return tab.page.evaluate(
            """([row, column]) => {
              const at = `M${132 + column * 24} ${row * 15}h`;
              const found = [...document.querySelectorAll('.picture svg path')].find((path) => path.getAttribute('d').includes(at));
              return Number(found.getAttribute('class').slice(1));
            }""",
            [kinds.index(name.split(".", 2)[2]), int(name.split(".")[1]) + 1],
        )

    kinds = tab.page.locator(".picture svg text.row").all_text_contents()
    judged = [name for name, each in by_name.items() if name.startswith("blocks.") and each["status"] != "unchecked"]
    for button, key in (("local error", "local_error"), ("inherited error", "inherited_error")):
        tab.page.locator(".picture .toggles button", has_text=button).click()
        order = sorted(judged, key=lambda name: by_name[name][key])
        shades = [shade(name) for name in order]
        assert shades == sorted(shades)
        assert len(set(shades)) > 5
    assert tab.page.locator(".picture svg path.flag").count() == 1
    assert (
        tab.page.locator(".picture svg path.none").get_attribute("d").count("M") == 4
    )  # attn.scores has no inherited error


def test_the_curve_shows_the_stream_and_then_the_chosen_kind(tab, document):
    by_name = sites(document)
    dots = tab.page.locator(".curve svg.curves circle.dot")
    assert dots.count() == 4
    heights = [float(dot.get_attribute("cy")) for dot in dots.all()]
    errors = [by_name[f"blocks.{layer}.resid_post"]["inherited_error"] for layer in range(4)]
    assert sorted(range(4), key=lambda at: -heights[at]) == sorted(range(4), key=lambda at: errors[at])
    slope = (heights[1] - heights[0]) / (math.log10(errors[1]) - math.log10(errors[0]))  # the axis is logarithmic
    assert heights[2] - heights[0] == pytest.approx(slope * (math.log10(errors[2]) - math.log10(errors[0])), abs=0.01)
    tab.page.locator(".curve .toggles button", has_text="only attn.v").click()
    rounding = tab.page.locator(".curve svg.curves path.allowed").get_attribute("d")
    squares = tab.page.locator(".curve svg.curves rect.dot")
    lines = [float(place.split(" ")[1]) for place in re.split("[ML]", rounding)[1:]]
    points = [float(square.get_attribute("y")) + 3 for square in squares.all()]
    local = [by_name[f"blocks.{layer}.attn.v"]["local_error"] for layer in range(4)]
    slope = (points[1] - points[0]) / (math.log10(local[1]) - math.log10(local[0]))
    assert lines == pytest.approx([points[0] + slope * math.log10(2e-6 / local[0])] * 4, abs=0.01)
    squares.nth(3).hover()
    near(tab.page.locator(".tip dd").inner_text(), by_name["blocks.3.attn.v"]["local_error"])
    squares.nth(3).click()
    assert tab.page.locator(".detail h2").inner_text() == "blocks.3.attn.v"
