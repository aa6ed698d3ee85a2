"""An edit in llama.cpp's graph does to the logits what the same edit does in PyTorch: same weights, both exact."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import llmtrace
from llmtrace import edits
from llmtrace.errors import EditNotSupportedError
from llmtrace.schema.steps import layer_of
from tests.backends.llamacpp.pairs import TOKENS, bound, off, pair, stated

NAMES = ("llama", "qwen3", "olmo2", "phi3", "granite", "cohere", "stablelm", "mixtral", "qwen3_moe", "gpt_oss", "gpt2", "gpt_neox",
         "gemma2", "falcon", "bloom")  # fmt: skip
EDGES = ("llama", "qwen3", "phi3", "cohere", "mixtral", "gpt_neox", "gemma2")
"""Whose attention multiplies the pattern and v, and then by the output matrix: without sinks."""
HEAD, QUERY, KEY = 2, 7, 3
CUT = np.where(np.arange(len(TOKENS)) == KEY, 0.0, 1.0)
"""By what a row of the pattern is scaled to cut one edge."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """`opened(name)`: the same model in PyTorch and in llama.cpp."""
    made = {}

    def get(name):
        if name not in made:
            both = pair(name, tmp_path_factory.mktemp("pair"))
            made[name] = both.torch(), both.llamacpp()
        return made[name]

    yield get
    for models in made.values():
        for model in models:
            model.close()


def change(site, step, array, place):
    """Another kind of edit at each place, large enough to be felt: of all of a signal, of some tokens, of the heads of one group."""
    random = np.random.default_rng(place)
    noise = np.sqrt((array.astype(np.float64) ** 2).mean()) * random.normal(size=array.shape)
    strong = (
        60 if step.equation.name in ("q", "k", "rot_q", "rot_k") else 2
    )  # a pattern hardly feels a small change of what makes it
    kinds = [
        edits.add(site, strong * noise),
        edits.replace(site, strong * noise),
        edits.scale(site, -strong, tokens=[2, 5, -1]),
    ]
    if {"head", "kv_head"} & set(step.axes) and strong == 2:
        group = step.sizes["head"] // step.sizes.get("kv_head", step.sizes["head"])
        return [*kinds, llmtrace.ablate(site, heads=range(group) if "kv_head" in step.axes else [1])][place % 4]
    return kinds[place % 3]


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_of_any_site_that_both_edit_has_the_same_effect(opened, name):
    theirs, ours = opened(name)
    plain, unedited = theirs.trace(TOKENS), ours.trace(TOKENS)
    noise = off(unedited, plain, "logits")[0]
    sites = [site for site in theirs.session.editable if site in ours.session.editable and layer_of(site) in (None, 1)]
    assert len(sites) >= 12 and "blocks.1.attn.z_post" in sites and "blocks.1.resid_post" in sites
    for place, site in enumerate(sites):
        made = [change(site, theirs.equations.steps[site], plain[site].array, place)]
        expected = theirs.trace(TOKENS, capture=[site, "logits"], edits=made)
        found = ours.trace(TOKENS, capture=[site, "logits"], edits=made)
        assert off(expected, plain, "logits")[0] > 100 * noise, f"{made} is not felt"
        for each in {site, "logits"}:
            assert off(found, expected, each)[1] <= bound(ours.spec), (made, each)
    again = ours.trace(TOKENS, capture="logits")["logits"].array
    np.testing.assert_array_equal(again, unedited["logits"].array)  # nothing of an edit is left


@pytest.mark.parametrize("name", NAMES)
def test_edits_of_several_blocks_act_together(opened, name):
    theirs, ours = opened(name)
    width = ours.spec.d_model
    made = [
        llmtrace.ablate("blocks.0.attn.z_post", heads=[3]),
        edits.add("blocks.1.resid_post", np.linspace(-1, 1, width), tokens=[4]),
        edits.replace("blocks.2.attn_out" if name == "falcon" else "blocks.2.mlp_out", 0.3, tokens=[-1]),
    ]
    made = [each for each in made if each.pick.pattern in theirs.session.editable]
    assert len(made) >= 2
    expected = theirs.trace(TOKENS, edits=made, capture="logits")
    found = ours.trace(TOKENS, edits=made, capture="logits")
    assert off(found, expected, "logits")[1] <= bound(ours.spec)
    for left in made:
        without = theirs.trace(TOKENS, edits=[each for each in made if each is not left], capture="logits")
        assert off(without, expected, "logits")[1] > 10 * bound(ours.spec), f"{left} is not felt"


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_that_is_cut_takes_its_value_out_of_z(opened, name):
    """PyTorch has no place to edit the pattern: there, what the edge brought is taken out of z."""
    theirs, ours = opened(name)
    plain = theirs.trace(TOKENS)
    weight, value = _edge(plain, ours.spec)
    found = ours.trace(TOKENS, edits=[edits.scale("blocks.1.attn.pattern", CUT, heads=[HEAD], tokens=[QUERY])])
    taken = [edits.add("blocks.1.attn.z_post", -weight * value, heads=[HEAD], tokens=[QUERY])]
    expected = theirs.trace(TOKENS, edits=taken)
    assert found["blocks.1.attn.pattern"].array[HEAD, QUERY, KEY] == 0
    _same_at(QUERY, found, expected, plain, ours.spec)


@pytest.mark.parametrize("name", EDGES)
def test_the_rest_of_a_row_can_be_made_to_sum_to_one_again(opened, name):
    """A knock-out of the score is a pattern without the edge, divided by what is left of it."""
    theirs, ours = opened(name)
    plain = theirs.trace(TOKENS)
    weight, value = _edge(plain, ours.spec)
    made = edits.scale("blocks.1.attn.pattern", CUT / (1 - weight), heads=[HEAD], tokens=[QUERY])
    found = ours.trace(TOKENS, edits=[made])
    z = plain["blocks.1.attn.z_post"].array[QUERY, HEAD].astype(np.float64)
    left = [edits.replace("blocks.1.attn.z_post", (z - weight * value) / (1 - weight), heads=[HEAD], tokens=[QUERY])]
    expected = theirs.trace(TOKENS, edits=left)
    assert found["blocks.1.attn.pattern"].array[HEAD, QUERY].sum() == pytest.approx(1, abs=bound(ours.spec))
    _same_at(QUERY, found, expected, plain, ours.spec)


@pytest.mark.parametrize("name", EDGES)
def test_a_head_without_queries_looks_at_all_that_it_sees_alike(opened, name):
    theirs, ours = opened(name)
    group = ours.spec.blocks[1].attention.heads // ours.spec.blocks[1].attention.kv_heads
    found = ours.trace(TOKENS, edits=[llmtrace.ablate("blocks.1.attn.rot_q", heads=[HEAD])])
    pattern = found["blocks.1.attn.pattern"].array[HEAD]
    window = ours.spec.blocks[1].attention.window or len(TOKENS)
    seen = np.array([[0 <= query - key < window for key in range(len(TOKENS))] for query in range(len(TOKENS))])
    uniform = seen / seen.sum(-1, keepdims=True)
    np.testing.assert_allclose(pattern, uniform, atol=1e-6)
    plain = theirs.trace(TOKENS)
    z = uniform @ plain["blocks.1.attn.v"].array[:, HEAD // group]
    expected = theirs.trace(TOKENS, edits=[edits.replace("blocks.1.attn.z_post", z[:, None], heads=[HEAD])])
    _same_at(slice(None), found, expected, plain, ours.spec)


def _edge(plain, spec):
    """Of the edge that is cut: its weight, and the value at its key [d_value]."""
    attention = spec.blocks[1].attention
    weight = float(plain["blocks.1.attn.pattern"].array[HEAD, QUERY, KEY])
    assert weight > 0.01, "the window hides the edge"
    return weight, plain["blocks.1.attn.v"].array[KEY, HEAD // (attention.heads // attention.kv_heads)].astype(
        np.float64
    )


def _same_at(tokens, found, expected, plain, spec):
    """What attention adds and the logits are the same, and what is left of the edit's effect is no fiftieth of it."""
    for site in ("blocks.1.attn_out", "logits"):
        assert off(found, expected, site)[1] <= bound(spec), site
    before, after, there = (trace["blocks.1.attn_out"].array[tokens] for trace in (plain, expected, found))
    assert np.linalg.norm(after - before) > 50 * np.linalg.norm(there - after)


def test_an_edit_under_flash_attention_is_the_same_within_its_rounding(tmp_path):
    both = pair("llama", tmp_path)
    made = [llmtrace.ablate("blocks.1.attn.z_post", heads=[1]), edits.scale("blocks.0.attn.rot_k", 3.0)]
    with both.torch() as theirs, both.llamacpp("shipped", flash_attn="on") as ours:
        expected, found = (model.trace(TOKENS, edits=made, capture="logits") for model in (theirs, ours))
        most = stated("`logits`", "`flash_attn=on`")
        assert off(found, expected, "logits")[0] <= most
        assert off(theirs.trace(TOKENS, capture="logits"), expected, "logits")[0] > 10 * most


def test_an_edit_of_a_prompt_that_runs_in_pieces_is_the_same(tmp_path):
    """Each piece is changed in its own rows, whatever piece they fall in."""
    both = pair("llama", tmp_path)
    with both.torch() as theirs, both.llamacpp(micro_batch=5) as ours:
        plain = theirs.trace(TOKENS)
        for site in ("blocks.1.attn.z_post", "blocks.1.attn.rot_k", "blocks.1.mlp.post", "blocks.0.resid_post"):
            noise = np.random.default_rng(0).normal(size=plain[site].array.shape)
            made = [edits.add(site, noise), edits.scale(site, -3.0, tokens=[3, 5, -1])]
            expected, found = (model.trace(TOKENS, edits=made, capture=[site, "logits"]) for model in (theirs, ours))
            assert off(expected, plain, "logits")[0] > 100 * bound(ours.spec)
            assert max(off(found, expected, each)[1] for each in (site, "logits")) <= bound(ours.spec)


def test_scores_are_not_edited_and_the_pattern_is_named_instead(opened):
    _, ours = opened("llama")
    with pytest.raises(EditNotSupportedError) as refused:
        ours.trace(TOKENS, edits=[llmtrace.ablate("blocks.0.attn.scores")])
    said = str(refused.value)
    assert said.startswith("blocks.0.attn.scores cannot be edited on the backend llamacpp")
    assert "in one operation with the softmax" in said and "Edit blocks.0.attn.pattern instead" in said


def test_a_pattern_that_flash_attention_keeps_is_not_edited_and_the_option_is_named(tmp_path):
    with pair("llama", tmp_path).llamacpp("shipped", flash_attn="on") as ours:
        with pytest.raises(EditNotSupportedError, match="flash_attn=off hands out the pattern"):
            ours.trace(TOKENS, edits=[llmtrace.ablate("blocks.0.attn.pattern")])
        with pytest.raises(EditNotSupportedError) as refused:
            ours.trace(TOKENS, edits=[llmtrace.ablate("blocks.0.attn.scores")])
        assert "Edit blocks.0.attn.pattern" not in str(refused.value)  # it cannot be edited here either
