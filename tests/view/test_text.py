"""Influence in a terminal: shades where there are colours, a table where there are none, and no token that is obeyed."""

import io
import re

import numpy as np
import pytest
from attrs import evolve
from rich.console import Console

from llmtrace.errors import OptionError
from llmtrace.trace import Token
from llmtrace.view.figures import ranks
from llmtrace.view.sentence import sentence, source, standings
from llmtrace.view.tables import heads_table, lens_table, signals_table
from llmtrace.view.text import heat_line, plain, shaded, strongest, summary
from tests.view import documents


def printed(draw, **settings):
    console = Console(file=io.StringIO(), width=160, highlight=False, **settings)
    draw(console)
    return console.file.getvalue()


@pytest.fixture
def hostile(influence):
    tokens = tuple(Token(place, text) for place, text in enumerate(documents.HOSTILE[: len(influence.tokens)]))
    return evolve(influence, tokens=tokens)


def test_the_summary_names_what_is_explained_and_the_strongest_sources_in_one_line(model):
    found = model.influence("a b c a b", method="dla", foil="d")
    line = summary(found)
    assert line == repr(found)
    assert line.startswith('<Influence dla: "c" rather than "d" at position 5 depends on "c" (')
    assert "\n" not in line


def test_a_method_that_does_not_aim_names_no_token_but_the_position(model):
    for method in ("alti", "rollout", "attention"):
        found = model.influence("a b c a b", method=method, target="d")
        line = repr(found)
        assert line.startswith(f"<Influence {method}: position 5 draws on ")
        assert line.endswith(", whatever token is predicted>")
        said = sentence(found)
        assert said == f"{method}: what position 5 draws on, whatever token is predicted, in {found.contract.unit}"
        assert '"d"' not in said


def test_a_source_that_stands_twice_is_named_with_its_position(model):
    tokens = model.tokens("a b c a b")
    assert [source(tokens, place) for place in range(6)] == [
        '"<bos>"', '"a" at 1', '"b" at 2', '"c"', '"a" at 4', '"b" at 5'
    ]  # fmt: skip


def test_the_predicted_token_stands_beside_a_target_that_is_another(model):
    own, other = (model.influence("a b c a b", method="dla", target=target) for target in (None, "d"))
    assert re.fullmatch(r'predicted: "c" \(probability 1\.00\)', standings(own))
    assert re.fullmatch(
        r'predicted: "c" \(probability 1\.00\); target: "d" \(probability \d\.\d\de-07, rank [\d-]+\)', standings(other)
    )
    assert "target" not in standings(model.influence("a b c a b", method="alti", target="d"))
    assert standings(other) in plain([other])


def test_strongest_orders_by_size_and_leaves_zeros_out(influence):
    some = evolve(influence, scores=np.array([0.0, -3.0, 1.0, 3.0, float("nan")] + [0.0] * (len(influence.tokens) - 5)))
    assert strongest(some, 9) == [1, 3, 2]


def test_a_terminal_gets_shades(influence):
    text = printed(
        lambda console: heat_line(influence, console), force_terminal=True, color_system="truecolor", _environ={}
    )
    assert re.search(r"\x1b\[[0-9;]*48;2;", text)


@pytest.mark.parametrize(
    "settings",
    [
        {"force_terminal": True, "color_system": "truecolor", "_environ": {"NO_COLOR": "1"}},
        {"force_terminal": False, "_environ": {}},
    ],
)
def test_without_colours_a_table_lists_every_token_with_its_score(influence, settings):
    text = printed(lambda console: heat_line(influence, console), **settings)
    assert "48;" not in text
    rows = re.findall(r'^ *(\d+)  "([^"]+)" +(\d+) +(\S+)', re.sub(r"\x1b\[[0-9;]*m", "", text), re.MULTILINE)
    assert [(int(at), word, int(id)) for at, word, id, _ in rows] == [
        (i, t.text, t.id) for i, t in enumerate(influence.tokens)
    ]
    np.testing.assert_allclose([float(score) for *_, score in rows], influence.scores, rtol=1e-3)


def test_no_token_is_obeyed_by_the_terminal(hostile, lens):
    coloured = printed(
        lambda console: heat_line(hostile, console), force_terminal=True, color_system="truecolor", _environ={}
    )
    for text in (re.sub(r"\x1b\[[0-9;]*m", "", coloured), plain([hostile], lens), repr(hostile)):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
        assert "\\x1b[31mred" in text or text == repr(hostile)
    assert "31mred" not in re.findall(r"\x1b\[[^\x1b]*", coloured)


def test_markup_in_a_token_is_text(influence):
    marked = evolve(influence, tokens=(Token(1, "[red]x[/red]"), *influence.tokens[1:]))
    assert "[red]x[/red]" in printed(lambda console: heat_line(marked, console))


def test_stronger_tokens_are_lighter_on_a_dark_terminal(influence):
    some = evolve(influence, scores=np.arange(len(influence.tokens)) / 10.0)
    backs = [span.style.split(" on #")[1][:6] for span in shaded(some).spans if " on #" in str(span.style)]
    lightness = [sum(int(back[at : at + 2], 16) for at in (0, 2, 4)) for back in backs]
    assert lightness == sorted(lightness)
    assert lightness[0] < lightness[-1]


def test_a_long_prompt_lists_its_strongest_and_says_so(influence):
    count = 200
    scores = np.zeros(count)
    scores[150] = 1.0
    long = evolve(influence, tokens=tuple(Token(1, f"w{i}") for i in range(count)), scores=scores, position=count - 1)
    text = printed(lambda console: heat_line(long, console))
    assert "the 64 strongest of 200 tokens" in text
    assert '"w150"' in text
    assert '"w149"' not in text


def test_head_scores_stand_beside_chance_and_none_is_said(model):
    found = model.influence("a b c", method="attention")
    text = printed(lambda console: console.print(heads_table(found.table)))
    assert re.search(r"previous-token +\d +\d +\d\.\d{3} +\d\.\d{3} +\d", text)
    assert re.search(r"induction +\d +\d +none +none +0", text)


def test_the_lens_lists_every_point(lens):
    text = printed(lambda console: console.print(lens_table(lens)))
    for reading in lens.layers:
        assert re.search(rf"{reading.site} +{ranks(reading.target_ranks)} ", text)
    assert re.search(r"blocks\.0\.resid_pre +1-16 ", text)  # all tokens are equally likely there
    assert not re.search(r"\b0\.0+\b|%", text)  # no probability is rounded to nothing


def test_signals_of_like_layers_share_a_row(trace):
    text = printed(lambda console: console.print(signals_table(trace)))
    assert "blocks.{0..1}.attn.pattern" in text
    assert text.count("attn.pattern ") == 1
    assert re.search(r"ln1\.scale +token=6 1 ", text)  # not `1=1`


def test_nothing_to_show_is_said():
    with pytest.raises(OptionError, match="nothing to show"):
        plain([])
