"""The page of types holds: a sample is measured again, its totals are those of its rows, and what counts, stops or is refused has a row."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from attrs import evolve

from llmtrace_torch import open as opening
from tests.benchmarks.coverage import measure as measuring
from tests.benchmarks.coverage.__main__ import main
from tests.benchmarks.coverage.apart import measured
from tests.benchmarks.coverage.counted import TYPES, bidirectional, excluded
from tests.benchmarks.coverage.measure import PROMPT, measure
from tests.benchmarks.coverage.outcome import Outcome
from tests.benchmarks.coverage.page import PAGE, alike, page, row, stated_rows, stated_totals, totals
from tests.benchmarks.coverage.shrink import shrunk, small
from tests.benchmarks.coverage.tiny import tiny

SAMPLE = [str(each) for each in sorted(np.random.default_rng(8).choice(sorted(stated_rows()), 8, replace=False))]
ROW = ("kernels", "layers", "sites", "structural", "full")


def test_a_sample_of_the_types_is_as_the_page_says():
    said = stated_rows()
    found = {each.kind: row(each).split(" | ")[1:6] for each in measured(SAMPLE, 1)}
    assert found == {kind: [said[kind][name] for name in ROW] for kind in SAMPLE}


def test_the_page_has_a_row_for_each_type_that_counts_and_names_each_other():
    text = PAGE.read_text(encoding="utf-8")
    rows = stated_rows()
    others = set(TYPES) - set(rows)
    assert set(rows) <= set(TYPES)
    assert {kind for kind in TYPES if excluded(kind)} <= others
    rule = text.partition("## What counts")[2].partition("## Types")[0]
    assert all(f"`{kind}`" in rule for kind in others)


def test_the_totals_are_those_of_the_rows():
    rows, said = stated_rows(), stated_totals()
    assert said["count"] == len(rows)
    for name in ("structural", "full"):
        assert said[name] == sum(each[name] == "✓" for each in rows.values())
    assert all(each["structural"] == "✓" for each in rows.values() if each["full"] == "✓")
    assert all(each["why"] for each in rows.values() if each["full"] != "✓")
    opened = said["structural"] + said["opened, and not structural"]
    assert opened + said["refused"] + said["no tiny model, or stopped"] == said["count"]


def test_a_decoder_is_structural_and_full_with_each_kernel():
    found = measure("qwen2_moe")
    assert (found.status, found.structural, found.full, found.why) == ("measured", True, True, ())
    assert found.kernels == ("sdpa", "eager")
    assert found.captured > found.derived > 0


def test_an_attention_that_is_opaque_is_missing(monkeypatch):
    watched = measuring.watched

    def more(model, prompt):
        seen = watched(model, prompt)
        return evolve(seen, softmaxes=[*seen.softmaxes, *seen.softmaxes[:1]])

    monkeypatch.setattr(measuring, "watched", more)
    found = measure("gpt2")
    assert not found.structural
    assert found.why[0] == "2 of 3 attentions are known"


def test_a_model_that_cannot_be_read_is_refused_with_what_was_raised(monkeypatch):
    def broken(*_given):
        raise TypeError("no such thing")

    monkeypatch.setattr(opening, "find", broken)
    found = measure("gpt2")
    assert (found.status, found.structural, found.full, found.why) == (
        "refused",
        False,
        False,
        ("TypeError: no such thing",),
    )


def test_encoders_do_not_count():
    assert measure("bert").why == ("bidirectional",)
    assert measure("bart").why == ("an encoder-decoder",)
    assert not bidirectional(tiny("gpt2"), PROMPT)


@pytest.mark.parametrize(("kind", "why"), [("kimi_linear", "it took too long"), ("no such type", "KeyError")])
def test_what_stops_is_a_row_of_its_own(kind, why):
    (found,) = measured([kind], 1, seconds=1)
    assert (found.kind, found.status, found.structural, found.full) == (kind, "stopped", False, False)
    assert found.why[0].startswith(why)


def test_types_are_chosen_by_words_and_the_page_is_of_all(capsys, tmp_path):
    assert main(["--only", "gpt-sw3", "ctrl", "--processes", "2"]) == 0
    said = capsys.readouterr().out
    assert "gpt-sw3: measured, structural, full\n" in said
    assert "count: 2, " in said
    with pytest.raises(SystemExit):
        main(["--only", "gpt2", "--write", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit):
        main(["--only", "no such type"])


def test_the_same_reason_in_two_layers_is_said_once():
    assert alike(["`blocks.0.attn` is opaque: x", "`blocks.1.attn` is opaque: x"]) == ["`blocks.L.attn` is opaque: x"]


def test_a_page_counts_its_rows():
    rows = [
        Outcome("a", "measured", ("sdpa",), structural=True, full=True),
        Outcome("b", "measured", ("eager",), structural=True, why=("x | y",)),
        Outcome("c", "refused", why=("no",)),
        Outcome("bert", "not counted", why=("bidirectional",)),
    ]
    text = page(rows)
    assert "x ¦ y" in text
    assert totals(rows[:3]) == stated_totals(text)
    assert list(stated_rows(text)) == ["a", "b", "c"]
    assert "Bidirectional: `bert`." in text


def test_one_layer_of_each_kind_is_kept_and_numbers_of_layers_follow():
    kinds = ["local", "local", "full"] * 4
    known = {
        "num_hidden_layers": 12,
        "layer_types": kinds,
        "full_layers": [2, 5, 8, 11],
        "hidden_size": 999,
        "heads": 3,
    }
    found = shrunk(known, told={"heads": 1})
    assert found["layer_types"] == ["local", "full"]
    assert (found["num_hidden_layers"], found["hidden_size"], found["heads"]) == (2, 64, 1)
    assert found["full_layers"] == [1]


@pytest.mark.parametrize("kind", ["llama", "afmoe", "gpt_oss", "xlstm"])  # of which some begin as zeros
def test_no_weight_of_a_tiny_model_is_trivial(kind):
    for name, weight in tiny(kind).named_parameters():
        array = weight.detach().numpy()
        assert not np.isin(array, (0, 1)).any() or "embed" in name
        assert array.std()


def test_a_tiny_model_is_the_same_again():
    model = tiny("llama")
    again = dict(tiny("llama").named_parameters())
    assert all((weight == again[name]).all() for name, weight in model.named_parameters())
    assert small("llama").num_hidden_layers == 2
