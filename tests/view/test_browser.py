"""The page in a real browser: pointer and keyboard, numbers, hostile tokens, no request and no complaint."""

import io

import numpy as np
import pytest

from llmtrace.view.html import page, save_page
from llmtrace.view.trace import save_trace_page
from tests.view import documents

pytestmark = pytest.mark.browser


def test_hover_says_score_text_and_id(show):
    document = documents.influence()
    tab = show(page([document]))
    np.testing.assert_allclose(tab.numbers(), document["scores"], rtol=1e-4)
    tab.token(3).hover()
    card = tab.page.locator(".tip").inner_text()
    assert '" France"' in card
    assert "103" in card


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("how", ["click", "Enter"])
def test_a_token_becomes_the_target_and_the_numbers_are_its_row(show, how, signed):
    document = documents.influence(signed=signed)
    tab = show(page([document]))
    for place in (2, 0, 3):
        if how == "click":
            tab.token(place).click()
        else:
            tab.token(tab.target()).focus()
            tab.page.keyboard.press("Home")
            for _ in range(place):
                tab.page.keyboard.press("ArrowRight")
            tab.page.keyboard.press("Enter")
        assert tab.target() == place
        np.testing.assert_allclose(tab.numbers(), document["matrix"][place], rtol=1e-4)
        sentence = tab.page.locator("h1").inner_text()
        assert f"at position {place}" in sentence
        assert f"guess{place}" in sentence
    tab.token(4).click()
    np.testing.assert_allclose(tab.numbers(), document["scores"], rtol=1e-4)


def test_the_sentence_names_method_target_and_strongest_source(show):
    document = documents.influence()
    best = document["tokens"][int(np.argmax(document["scores"]))]["text"].strip()
    sentence = show(page([document])).page.locator("h1").inner_text()
    assert "alti" in sentence
    assert "Paris at position 4 depends on" in sentence
    assert sentence.index(best) < sentence.index("…")


def test_a_method_that_does_not_aim_explains_the_position_whatever_is_predicted(show):
    document = documents.influence(("a", " b", "a", " b"), method="alti")
    document["tokens"][2] = document["tokens"][0]
    document |= {"aims": False, "target": {"id": 9, "text": " named"}, "scores": [0.4, 0.3, 0.2, 0.1]}
    tab = show(page([document]))
    sentence = tab.page.locator("h1").inner_text()
    assert "Position 3 draws on" in sentence
    assert "whatever token is predicted" in sentence
    assert "named" not in tab.page.locator("main").inner_text()
    assert tab.page.locator(".predicted").inner_text().split() == ["predicts", "␣Paris"]
    assert tab.page.title() == "alti at position 3"
    assert "draws on a at 0 0.40, ␣b 0.30, a at 2 0.20" in sentence


def test_the_page_says_what_is_predicted_and_how_likely_the_target_is(show):
    document = documents.influence(method="dla", signed=True)
    document["target"] = {"id": 1, "text": "Paris"}
    document["predicted_standing"] = {"probability": 0.773, "rank": 1, "ranks": [1, 1]}
    document["target_standing"] = {"probability": 5.15e-4, "rank": 44, "ranks": [44, 46]}
    facts = show(page([document])).page.locator(".facts").inner_text().split("\n")
    assert facts[facts.index("predicted") + 1] == '" Paris" 0.773'
    assert facts[facts.index("target") + 1] == '"Paris" 0.000515, rank 44-46'


def test_rows_of_the_map_are_numbered_where_tokens_repeat(show):
    tab = show(page([documents.influence(("a", " b", " a", " b"))]))
    assert tab.page.locator(".sources svg text.row").all_text_contents() == [
        "a\u20020",
        "␣b\u20021",
        "␣a\u20022",
        "␣b\u20023",
    ]


def test_nearly_nothing_is_not_tinted(show):
    document = documents.influence(signed=True)
    document["scores"] = [0.001, -0.001, 0.02, -0.02, 1.0]
    tab = show(page([document]))
    chips = [node.get_attribute("class").split()[1] for node in tab.page.locator(".token .chip").all()]
    assert chips == ["p0", "p0", "p1", "n1", "p32"]


def test_nothing_scrolls_on_a_wide_screen(show):
    tab = show(page([documents.influence()], documents.lens()))
    tab.page.set_viewport_size({"width": 1400, "height": 900})
    scrolls = (
        "[...document.querySelectorAll('.scroll, .wide')].filter((node) => node.scrollWidth > node.clientWidth).length"
    )
    assert tab.page.evaluate(scrolls) == 0


def test_a_shared_rank_is_shown_as_a_span(show):
    lens = documents.lens()
    lens["layers"][0] |= {"target_rank": 2, "target_ranks": [1, 16]}
    tab = show(page([documents.influence()], lens))
    assert tab.page.locator("section.lens tbody td:nth-child(2)").first.inner_text() == "1-16"


def test_focus_shows_the_same_card_as_hover(show):
    tab = show(page([documents.influence()]))
    tab.token(4).focus()
    tab.page.keyboard.press("ArrowLeft")
    assert '" France"' in tab.page.locator(".tip").inner_text()
    tab.page.keyboard.press("Escape")
    assert tab.page.locator(".tip").is_hidden()


def test_without_a_matrix_it_says_how_to_ask(show):
    tab = show(page([documents.influence(matrix=False)]))
    tab.token(1).click()
    assert "--method alti --position 1" in tab.page.locator(".message").inner_text()
    assert tab.page.locator(".number").all_inner_texts() == [""] * 5


def test_each_method_has_a_tab_and_its_own_numbers(show):
    two = [documents.influence(), documents.influence(method="dla", signed=True)]
    tab = show(page(two, documents.lens()))
    tab.page.get_by_role("tab", name="dla").click()
    np.testing.assert_allclose(tab.numbers(), two[1]["scores"], rtol=1e-4)
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("tab", name="dla").press("ArrowLeft")
    np.testing.assert_allclose(tab.numbers(), two[0]["scores"], rtol=1e-4)


def test_the_head_map_is_read_by_pointer_and_by_keyboard(show):
    document = documents.influence(method="dla", signed=True)
    tab = show(page([document]))
    box = tab.page.locator(".heads svg.map")
    box.scroll_into_view_if_needed()
    width, height, gutter = 22, 14, 132
    box.hover(position={"x": gutter + 3.5 * width, "y": 1.5 * height})
    assert f"{abs(document['heads'][3][1]):.3g}"[:4] in tab.page.locator(".tip").inner_text()
    assert "layer 3, head 1" in tab.page.locator(".tip").inner_text()
    tab.page.locator(".sources svg.map").focus()
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowDown")
    assert "layer 4, head 2" in tab.page.locator(".tip").inner_text()
    assert tab.page.locator(".spoken").inner_text().startswith("layer 4, head 2, score ")


def test_the_lens_lists_ranks_and_probabilities(show):
    lens = documents.lens()
    tab = show(page([documents.influence()], lens))
    ranks = tab.page.locator("section.lens tbody td:nth-child(2)").all_inner_texts()
    assert [int(rank) for rank in ranks] == [point["target_rank"] for point in lens["layers"]]
    assert tab.page.locator("section.lens span.same").count() == len(lens["layers"])


def test_hostile_tokens_are_shown_and_do_nothing(show):
    tab = show(page([documents.influence(documents.HOSTILE)], documents.lens(documents.HOSTILE), title="<b>"))
    shown = tab.page.locator(".token .chip").all_inner_texts()
    assert shown[0] == "</script><img␣src=x␣onerror=alert(1)>"
    assert shown[1:6] == ["\\u202eevil\\u202c", "\\x1b[31mred\\x1b[0m", "\\ud83d", "\\x00", "a⏎⇥b"]
    assert tab.page.locator("img").count() == 0
    assert tab.page.title() == "<b>"
    widths = tab.page.evaluate(
        "[...document.querySelectorAll('.token')].map((node) => node.getBoundingClientRect().left)"
    )
    assert widths[:6] == sorted(widths[:6])  # no token turns the line around


def test_right_to_left_tokens_keep_the_order_of_the_line(show):
    words = ("a", " שלום", " العالم", " b", " c")
    tab = show(page([documents.influence(words)]))
    lefts = tab.page.evaluate(
        "[...document.querySelectorAll('.token')].map((node) => node.getBoundingClientRect().left)"
    )
    assert lefts == sorted(lefts)


@pytest.mark.parametrize(("scheme", "sign"), [("light", -1), ("dark", 1)])
def test_a_grey_copy_orders_the_tokens_by_strength(show, scheme, sign):
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    document = documents.influence(tuple("abcdefgh"))
    document["scores"] = [0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0]
    tab = show(page([document]), color_scheme=scheme)
    greys = []
    for place in range(8):
        shot = tab.token(place).locator(".chip").screenshot()
        picture = image.open(io.BytesIO(shot)).convert("L")
        greys.append(picture.getpixel((4, picture.height // 2)))
    assert greys == sorted(greys, reverse=sign < 0)
    assert len(set(greys)) == 8


def test_a_bar_below_each_token_grows_with_its_score(show):
    document = documents.influence(tuple("abcde"), signed=True)
    document["scores"] = [0.0, 0.25, -0.5, 0.75, 1.0]
    tab = show(page([document]))
    heights = tab.page.evaluate(
        "[...document.querySelectorAll('.bar > span')].map((node) => node.getBoundingClientRect().height)"
    )
    np.testing.assert_allclose(heights, np.abs(document["scores"]) * heights[-1], atol=0.1)
    styles = tab.page.evaluate(
        "[...document.querySelectorAll('.bar > span')].map((node) => (getComputedStyle(node).backgroundColor === 'rgba(0, 0, 0, 0)' ? 'hollow ' : '') + getComputedStyle(node).borderTopStyle)"
    )
    assert styles == ["none", "none", "hollow solid", "none", "none"]  # what takes away is hollow


def test_the_scale_can_leave_the_first_position_out(show):
    document = documents.influence()
    document["scores"] = [0.9, 0.04, 0.03, 0.02, 0.01]
    tab = show(page([document]))
    assert tab.token(1).locator(".chip").get_attribute("class") == "chip p1"
    tab.page.get_by_label("scale without the first position").check()
    assert tab.token(1).locator(".chip").get_attribute("class") == "chip p32"
    assert tab.token(0).locator(".chip").get_attribute("class") == "chip p32"


def test_a_long_prompt_stays_quick(show):
    words = tuple(f" word{place}" for place in range(1200))
    document = documents.influence(words, layers=12)
    tab = show(page([document]))
    tab.token(700).click(timeout=5000)
    assert tab.target() == 700
    tab.token(690).hover()
    assert float(tab.page.locator(".tip .exact").inner_text()) == pytest.approx(document["matrix"][700][690], rel=1e-4)


def test_records_of_a_model_are_shown_as_they_are(show, influence, lens):
    tab = show(lambda file: save_page(file, [influence], lens))
    np.testing.assert_allclose(tab.numbers(), influence.scores, rtol=1e-4)
    tab.token(3).click()
    np.testing.assert_allclose(tab.numbers(), influence.matrix[3], rtol=1e-4)


def test_a_trace_shows_the_pattern_of_a_head_and_query(show, trace):
    tab = show(lambda file: save_trace_page(file, trace))
    box = tab.page.locator(".heads svg.map")
    box.click(position={"x": 132 + 0.5 * 22, "y": 1.5 * 14})
    assert "Layer 0, head 1" in tab.page.locator("h2.sentence").inner_text()
    tab.token(3).click()
    np.testing.assert_allclose(tab.numbers(), trace["blocks.0.attn.pattern"].array[1, 3], atol=2e-5)


def test_a_head_of_a_method_with_maps_is_shown_alone(show, model):
    found = model.influence("a b c a b", method="attention")
    tab = show(lambda file: save_page(file, [found]))
    tab.page.locator(".heads svg.map").click(position={"x": 132 + 1.5 * 22, "y": 0.5 * 14})
    np.testing.assert_allclose(tab.numbers(), found.maps[1, 0], rtol=1e-4, atol=1e-7)
