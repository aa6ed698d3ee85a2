"""A map says what a dump's names mean; whatever it says wrong is named."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import DumpError
from tests.importing.conftest import IDS, archive, directory, recorded

MAP = """
"q{L}" = { site = "blocks.{L}.attn.q", axes = "batch token (head d_head)" }
"att.{L}" = { site = "blocks.{L}.attn.pattern", axes = "head key query" }
"scores" = { site = "blocks.1.attn.scores", factor = 0.25 }
"h" = "blocks.1.resid_post"
"ids" = "tokens"
"""


def foreign(trace):
    """Some signals as somebody else keeps them: other names, other axes, scores before the scale."""
    dump = {"scores": trace["blocks.1.attn.scores"].array * np.float32(4), "ids": np.array(IDS)}
    for layer in range(2):
        dump[f"q{layer}"] = trace[f"blocks.{layer}.attn.q"].array.reshape(1, len(IDS), -1)
        dump[f"att.{layer}"] = trace[f"blocks.{layer}.attn.pattern"].array.transpose(0, 2, 1)
    return dump | {"h": trace["blocks.1.resid_post"].array}


@pytest.mark.parametrize("form", [archive, directory])
def test_a_map_in_toml_names_arranges_and_scales(tmp_path, form):
    model, trace = recorded()
    (tmp_path / "map.toml").write_text(MAP)
    found = llmtrace.import_dump(form(tmp_path / "dump", foreign(trace)), model, names=tmp_path / "map.toml")
    assert set(found.trace) == {
        *(f"blocks.{layer}.attn.{name}" for layer in range(2) for name in ("q", "pattern")),
        "blocks.1.attn.scores", "blocks.1.resid_post",
    }  # fmt: skip
    for site, signal in found.trace.signals.items():
        assert signal.array.tobytes() == trace[site].array.tobytes()
    assert "from [batch token (head d_head)]" in str(found.trace["blocks.0.attn.q"].provenance)
    assert "times 0.25" in str(found.trace["blocks.1.attn.scores"].provenance)


def test_the_same_map_is_a_mapping_in_python():
    model, trace = recorded()
    names = {
        "h": "blocks.1.resid_post",
        "ids": "tokens",
        "att.0": {"site": "blocks.0.attn.pattern", "axes": "head key query"},
    }
    dump = {name: array for name, array in foreign(trace).items() if name in names}
    assert list(llmtrace.import_dump(dump, model, names=names).trace) == [
        "blocks.0.attn.pattern",
        "blocks.1.resid_post",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('h = "blocks.1.resid_psot"', r"'?blocks\.1\.resid_psot'?, which is no site.*Did you mean blocks\.1\.resid_post"),
        ('hh = "blocks.1.resid_post"', r"speaks of hh, which this dict does not hold"),
        ('"q{L}" = "blocks.0.attn.q"', r"must both have \{L\}"),
        ("h = 3", "neither a site nor a table"),
        ('h = { axes = "token d_model" }', "neither a site nor a table"),
        ('h = { site = "blocks.1.resid_post", axis = "token" }', "has axis; a row has site, axes, factor.*Did you mean axes"),
        ('h = { site = "blocks.1.resid_post", axes = ["token"] }', "no text"),
        ('h = { site = "blocks.1.resid_post", axes = "token head" }', "not those of blocks.1.resid_post"),
        ('h = { site = "blocks.1.resid_post", factor = 0 }', "no finite number but 0"),
        ('h = { site = "blocks.1.resid_post", factor = inf }', "no finite number but 0"),
        ('h = { site = "blocks.1.resid_post", factor = "2" }', "no finite number but 0"),
        ('h = { site = "blocks.1.resid_post", factor = true }', "no finite number but 0"),
        ('h = { site = "blocks.1.resid_post", factor = 1' + 400 * "0" + " }", "no finite number but 0"),
        ('h = "blocks.{L}.resid_post"', r"must both have \{L\}"),
        ('ids = { site = "tokens", factor = 2 }', "token ids have neither"),
        ('h = "blocks.1.resid_post', "no map in TOML"),
        ('"q{L}" = "blocks.{L}.attn.q"\nq0 = "blocks.0.attn.q"', "says twice what q0 is"),
    ],
)  # fmt: skip
def test_a_map_that_says_something_wrong_is_refused_by_name(tmp_path, text, words):
    model, trace = recorded()
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(DumpError, match=words) as caught:
        llmtrace.import_dump(foreign(trace), model, IDS, names=tmp_path / "map.toml")
    assert "\n" not in str(caught.value)


def test_a_map_that_is_not_there_is_named(tmp_path):
    model, trace = recorded()
    with pytest.raises(DumpError, match=r"There is no file .*none\.toml"):
        llmtrace.import_dump(foreign(trace), model, IDS, names=tmp_path / "none.toml")
    with pytest.raises(DumpError, match="cannot be read: "):
        llmtrace.import_dump(foreign(trace), model, IDS, names=tmp_path)
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DumpError, match=r"bad\.toml is no map in TOML"):
        llmtrace.import_dump(foreign(trace), model, IDS, names=tmp_path / "bad.toml")


def test_a_map_is_read_before_the_model_is_opened(tmp_path):
    (tmp_path / "map.toml").write_text("h = 3")
    for names, words in ((tmp_path / "none.toml", "There is no file"), (tmp_path / "map.toml", "neither a site")):
        with pytest.raises(DumpError, match=words):
            llmtrace.import_dump({"h": np.zeros(3)}, tmp_path / "no_model", IDS, names=names)


def test_a_mask_is_one_whatever_its_scores_are_multiplied_by():
    """As eager attention masks, with the least number of its type, of which a quarter is another number."""
    model, trace = recorded()
    at = "blocks.1.attn.scores"
    scores = trace[at].array
    masked = np.where(np.isneginf(scores), np.finfo(np.float32).min, 4 * scores)
    names = {"s": {"site": at, "factor": 0.25}}
    signal = llmtrace.import_dump({"s": masked}, model, IDS, names=names).trace[at]
    assert signal.array.tobytes() == scores.tobytes()
    assert str(signal.provenance).endswith("the type's minimum as -inf; times 0.25)")


def test_a_factor_and_axes_are_those_of_every_block():
    model, trace = recorded()
    names = {"q{L}": {"site": "blocks.{L}.attn.q", "axes": "token (head d_head)", "factor": 0.5}}
    dump = {f"q{layer}": 2 * trace[f"blocks.{layer}.attn.q"].array.reshape(len(IDS), -1) for layer in range(2)}
    found = llmtrace.import_dump(dump, model, IDS, names=names).trace
    for layer in range(2):
        np.testing.assert_array_equal(found[f"blocks.{layer}.attn.q"].array, trace[f"blocks.{layer}.attn.q"].array)


def test_a_factor_is_multiplied_with_all_the_digits_that_a_value_has():
    model, trace = recorded("sequential", "float64")
    embed = trace["embed"].array
    found = llmtrace.import_dump({"e": embed}, model, IDS, names={"e": {"site": "embed", "factor": 1 / 3}}).trace
    np.testing.assert_array_equal(found["embed"].array, embed * (1 / 3))


def test_integers_take_no_factor():
    model, trace = recorded("experts")
    names = {"e": {"site": "blocks.0.mlp.expert_index", "factor": 2}}
    with pytest.raises(DumpError, match="holds integers, which take no factor"):
        llmtrace.import_dump({"e": trace["blocks.0.mlp.expert_index"].array}, model, IDS, names=names)
