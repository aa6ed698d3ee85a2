"""llama.cpp and PyTorch compute the same from the same weights, as nearly as docs/llamacpp.md states; where they do not, why is known."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import llmtrace
from llmtrace import edits
from llmtrace.schema.steps import any_layer
from tests.backends.llamacpp.pairs import TOKENS, bound, gelu, off, pair, stated
from tests.backends.llamacpp.tiny import MODELS, changed, write_gguf

FLASH = {"cache=f16": ("off", "f16"), "flash_attn=on": ("on", "f16")}
"""The columns of the page's second table: flash attention, and the type of the cache."""
GELUS = ("bloom", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "mpt", "phi", "starcoder2")
WINDOWED = ("mistral", "mixtral", "phi3", "starcoder2")
UNWEIGHTED = {"attention_bias": False, "mlp_bias": False}
"""A Llama that transformers' reader of GGUF files knows, which takes no biases."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """`pairs(name)`: written once a module."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = pair(name, tmp_path_factory.mktemp("pair"))
        return made[name]

    return get


@pytest.mark.parametrize("name", MODELS)
def test_every_signal_that_both_hand_out_is_the_same(pairs, name):
    with pairs(name).torch() as theirs, pairs(name).llamacpp() as ours:
        assert ours.spec.d_model == theirs.spec.d_model
        shared = [site for site in theirs.session.offers if site in ours.session.offers]
        assert len(shared) > 10 * len(ours.spec.blocks) and "logits" in shared
        expected, found = theirs.trace(TOKENS, capture=shared), ours.trace(TOKENS, capture=shared)
        apart = {site: off(found, expected, site)[1] for site in shared}
        assert {site: each for site, each in apart.items() if each > bound(ours.spec)} == {}


def table(x):
    """What ggml looks up for GELU (`ggml_vec_gelu_f32`): the tanh form at the nearest half, rounded to a half; the ends are exact."""
    half = x.astype(np.float16).astype(np.float32)
    inner = np.float32(0.7978845608) * half * (1 + np.float32(0.044715) * half * half)
    found = (np.float32(0.5) * half * (1 + np.tanh(inner))).astype(np.float16).astype(np.float32)
    return np.where(x <= -10, 0, np.where(x >= 10, x, found))


@pytest.mark.parametrize("name", GELUS)
def test_what_a_gelu_model_differs_by_is_the_table_and_nothing_else(pairs, name):
    """The table gives llama.cpp's activations from its own inputs; with those put into PyTorch, all else agrees as without GELU."""
    with pairs(name).torch() as theirs, pairs(name).llamacpp() as ours:
        assert gelu(ours.spec)
        found = ours.trace(TOKENS)
        posts = [f"blocks.{layer}.mlp.post" for layer in range(len(ours.spec.blocks))]
        for post in posts:
            at = post.removesuffix(".post")
            up = found[f"{at}.pre_linear"].array if f"{at}.pre_linear" in found else np.float32(1)
            made = table(found[f"{at}.pre"].array) * up
            same = np.isclose(made, found[post].array, rtol=1e-6, atol=0)
            assert same.mean() > 0.999  # tanh by another library may round one to the neighbouring half
            np.testing.assert_allclose(made, found[post].array, rtol=2e-3, atol=1e-7)
        pinned = [edits.replace(post, found[post].array) for post in posts]
        shared = [site for site in theirs.session.offers if site in ours.session.offers]
        expected = theirs.trace(TOKENS, capture=shared, edits=pinned)
        apart = {site: off(found, expected, site)[1] for site in shared}
        exact = stated("SiLU, ReLU²", "of the worst token, at most")
        assert {site: each for site, each in apart.items() if each > exact} == {}


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_that_llama_cpp_does_not_compute_is_all_that_the_windowed_differ_by(tmp_path, name):
    """Queries that see everything anyway agree; the first signal that does not is the first pattern."""
    both = pair(name, tmp_path, sliding_window=5)
    with both.torch() as theirs, both.llamacpp() as ours:
        assert {block.attention.window for block in theirs.spec.blocks} == {5}
        assert {block.attention.window for block in ours.spec.blocks} == {None}
        expected, found = theirs.trace(TOKENS), ours.trace(TOKENS)
        shared = [site for site in theirs.session.offers if site in ours.session.offers]
        apart = [site for site in shared if off(found, expected, site)[1] > bound(ours.spec)]
        assert apart[0] == "blocks.0.attn.pattern"
        short, cut = ours.trace(TOKENS[:5], capture=shared), theirs.trace(TOKENS[:5], capture=shared)
        assert max(off(short, cut, site)[1] for site in shared) <= bound(ours.spec)


@pytest.mark.parametrize("column", FLASH)
@pytest.mark.parametrize("name", MODELS)
def test_rounding_to_half_precision_stays_within_what_the_page_states(pairs, name, column):
    local, whole = _rounded(pairs(name), column)
    assert {kind: each for kind, each in local.items() if each > _local(column, kind)} == {}
    beyond = {row: each for row, each in whole.items() if each > stated(f"`{row}`", f"`{column}`")}
    assert beyond == {}


def test_what_the_page_states_is_not_far_above_what_is_seen(pairs):
    seen = defaultdict(float)
    for column in FLASH:
        for name in ("gemma3_text", "gemma", "qwen3", "hunyuan_v1_dense", "phi"):
            local, whole = _rounded(pairs(name), column)
            for kind, each in local.items():
                seen[f"local, `{kind}`", f"`{column}`"] = max(seen[f"local, `{kind}`", f"`{column}`"], each)
            for row, each in whole.items():
                seen[f"`{row}`", f"`{column}`"] = max(seen[f"`{row}`", f"`{column}`"], each)
    for row in ("local, `attn.z`", "`attn.pattern`", "`resid_post`", "`logits`"):
        for column in FLASH:
            assert seen[row, f"`{column}`"] > stated(row, f"`{column}`") / 4, (row, column)
    assert seen["local, `attn.pattern`", "`cache=f16`"] > stated("local, `attn.pattern`", "`cache=f16`") / 4


def _rounded(both, column):
    """The largest local error of each kind of site; how far the pattern, the stream and the logits are from those of `exact`."""
    flash, cache = FLASH[column]
    local, whole = defaultdict(float), defaultdict(float)
    with both.llamacpp() as exact, both.llamacpp("shipped", flash_attn=flash, cache=cache) as rounded:
        for each in rounded.verify(TOKENS):
            assert each.status in ("holds", "unchecked"), each
            local[_kind(each.site)] = max(local[_kind(each.site)], each.relative_error)
        expected, found = exact.trace(TOKENS), rounded.trace(TOKENS)
        for site in expected:
            if _kind(site) in ("attn.pattern", "resid_post", "logits"):
                whole[_kind(site)] = max(whole[_kind(site)], off(found, expected, site)[0])
    return local, whole


def _kind(site):
    return any_layer(site).removeprefix("blocks.L.")


def _local(column, kind):
    """What the page states of a kind of site: GELU is the table's, and no matter of the cache."""
    if kind == "mlp.post":
        return stated("GELU", "of the worst token, at most")
    row = f"local, `{kind}`"
    if kind == "attn.pattern" and column == "flash_attn=on":
        raise AssertionError("flash attention makes no pattern")
    return stated(row if kind in ("attn.pattern", "attn.z") else "local, any other", f"`{column}`")


class TestQuantised:
    """The same file, packed in llama.cpp and dequantised in PyTorch."""

    @staticmethod
    def both(directory, kind):
        path = write_gguf(changed("llama", **UNWEIGHTED), directory / f"{kind}.gguf", kind)
        ours = llmtrace.open(path, backend="llamacpp", preset="exact", options={"guard": False, "threads": 1})
        return ours, llmtrace.open(path, backend="torch", preset="exact")

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
    def test_the_record_says_which_ran(self, tmp_path, kind):
        ours, theirs = self.both(tmp_path, kind)
        with ours, theirs:
            assert ours.info.weights == f"{kind}, F32, packed" and theirs.info.weights == f"{kind}, F32, dequantised"
            assert ours.info.settings["flash_attn"] == "off" and theirs.info.settings["dtype"] == "float32"
            assert ours.session.stored["blocks.0.attn.W_Q"] == theirs.session.stored["blocks.0.attn.W_Q"] == kind
            np.testing.assert_array_equal(ours.weights["blocks.1.attn.W_K"], theirs.weights["blocks.1.attn.W_K"])

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
    def test_they_differ_by_what_verify_says_that_packing_does(self, tmp_path, kind):
        """What goes into the first products is the same, so their difference is the rounding of their operands: as large as verify
        finds it without PyTorch, and within what it allows."""
        exact = stated("SiLU, ReLU²", "of the worst token, at most")
        ours, theirs = self.both(tmp_path, kind)
        with ours, theirs:
            found, expected = ours.trace(TOKENS), theirs.trace(TOKENS)
            verdicts = {each.site: each for each in ours.verify(TOKENS)}
            assert off(found, expected, "blocks.0.ln1.out")[1] < 1e-6
            for site in ("blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v"):
                apart, worst = off(found, expected, site)
                assert 100 * exact < apart <= verdicts[site].tolerance and worst <= 2 * verdicts[site].tolerance
                assert apart == pytest.approx(verdicts[site].relative_error, rel=1e-2)
            assert {each.status for each in verdicts.values()} <= {"holds", "unchecked"}
            packed = off(found, expected, "logits")[0]
        ours, theirs = self.both(tmp_path, "F32")
        with ours, theirs:
            plain = off(ours.trace(TOKENS), theirs.trace(TOKENS), "logits")[0]
        assert plain <= exact and packed > 1000 * plain
        assert packed <= stated("Q8_0, Q4_1", "`logits`, at most")


@pytest.mark.slow
def test_a_published_quantised_model_differs_by_what_the_page_states(smollm2):
    """SmolLM2's Q4_1: packed and dequantised, and packed under both presets."""
    prompt = "When Mary and John went to the store, John gave a drink to"
    logits = {}
    for backend, preset in (("torch", "exact"), ("llamacpp", "exact"), ("llamacpp", "shipped")):
        with llmtrace.open(smollm2, backend=backend, preset=preset) as model:
            logits[backend, preset] = model.trace(prompt, capture="logits")
    exact = logits["llamacpp", "exact"]
    for other in (logits["torch", "exact"], logits["llamacpp", "shipped"]):
        most = stated("SmolLM2, Q4_1", "`logits`, at most")
        assert most / 5 < off(exact, other, "logits")[0] <= most
    assert exact["logits"].array[-1].argmax() == logits["torch", "exact"]["logits"].array[-1].argmax()
