"""Signals of llama.cpp's own graph: every equation holds on every architecture, under both presets, and what is missing says why."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import ModelOpenError
from llmtrace.schema.steps import any_layer
from llmtrace.schema.verify import distance
from tests.backends.llamacpp.tiny import MODELS, changed, write_gguf

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
SHOWN = {"embed", "blocks.L.resid_pre", "blocks.L.resid_post", "blocks.L.attn_out", "blocks.L.mlp_out", "blocks.L.attn.rot_q",
         "blocks.L.attn.rot_k", "blocks.L.attn.v", "blocks.L.attn.pattern", "blocks.L.attn.z_post", "ln_final.out", "logits"}  # fmt: skip
"""What the graph of every architecture shows."""
HIDDEN = {"olmo": {"ln_final.out"}}
"""OLMo's norms have no weights to know them by."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = {}

    def get(name, kind):
        if (name, kind) not in made:
            family, overrides = MODELS[name]
            made[name, kind] = write_gguf(
                changed(family, **overrides), tmp_path_factory.mktemp("gguf") / "tiny.gguf", kind
            )
        return made[name, kind]

    return get


@pytest.fixture
def opened(files):
    models = []

    def open(family, preset="exact", kind="F32", **options):
        path = files(family, kind)
        models.append(llmtrace.open(path, backend="llamacpp", preset=preset, options={"guard": False, **options}))
        return models[-1]

    yield open
    for model in models:
        model.close()


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_every_equation_holds(opened, family, preset):
    model = opened(family, preset)
    for tokens in (TOKENS[:1], TOKENS):
        verdicts = model.verify(tokens)
        assert [
            (error.site, error.relative_error, error.reason) for error in verdicts if error.status == "violated"
        ] == []
        assert sum(error.status == "holds" for error in verdicts) > 10 * len(model.spec.blocks)


@pytest.mark.parametrize("family", MODELS)
def test_the_graph_of_every_architecture_shows_the_stream_and_attention(opened, family):
    model = opened(family)
    missing = SHOWN - {any_layer(site) for site in model.session.offers}
    assert missing <= HIDDEN.get(family, set())
    for gap in model.session.gaps.values():
        assert gap.kind in ("upstream", "impossible") and gap.reason


def test_flash_attention_keeps_the_pattern_and_the_core_derives_it(opened):
    model = opened("llama", "shipped", flash_attn="on")
    assert "blocks.0.attn.pattern" not in model.session.offers
    assert "flash_attn=off" in model.session.gaps["blocks.0.attn.pattern"].reason
    exact = opened("llama").trace(TOKENS)["blocks.0.attn.pattern"]
    derived = model.trace(TOKENS)["blocks.0.attn.pattern"]
    assert (exact.provenance.kind, derived.provenance.kind) == ("converted", "derived")
    assert distance(derived.array, exact.array, 1)[0] < 1e-3


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_kernels_hold_within_what_rounding_their_operands_explains(opened, kind):
    model = opened("llama", kind=kind)
    assert model.session.stored["blocks.0.attn.W_Q"] == kind
    verdicts = model.verify(TOKENS)
    assert [error.site for error in verdicts if error.status == "violated"] == []
    worst = max(error.relative_error / error.tolerance for error in verdicts if error.site.endswith("attn.q"))
    assert worst > 0.02, "what is declared as rounding does not show"


@pytest.mark.parametrize(
    "kind",
    [
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_S",
        "IQ3_XXS",
        "IQ2_S",
        "IQ2_XS",
        "IQ2_XXS",
        "IQ1_S",
        "IQ1_M",
    ],
)
def test_k_quants_and_imatrix_types_hold_too(opened, kind):
    model = opened("of whole blocks", kind=kind)
    assert model.session.stored["blocks.0.attn.W_Q"] == kind
    verdicts = model.verify(TOKENS)
    assert [
        (error.site, error.relative_error, error.tolerance) for error in verdicts if error.status == "violated"
    ] == []
    assert sum(error.status == "holds" for error in verdicts) > 10 * len(model.spec.blocks)


def test_logits_with_and_without_capture_are_the_same_bits(opened):
    for preset in ("exact", "shipped"):
        model = opened("llama", preset)
        bare = model.trace(TOKENS, capture="logits")["logits"].array
        np.testing.assert_array_equal(model.trace(TOKENS)["logits"].array, bare)


def test_a_longer_prompt_than_the_last_context_opens_another(opened):
    model = opened("llama")
    short = model.trace(TOKENS[:3], capture="logits")["logits"].array
    model.trace((TOKENS * 6)[:64], capture="logits")
    np.testing.assert_array_equal(model.trace(TOKENS[:3], capture="logits")["logits"].array, short)


def test_a_smaller_context_can_be_asked_for(opened):
    model = opened("llama", context=8)
    assert model.spec.context == 8
    with pytest.raises(llmtrace.LLMTraceError, match="over the model's context of 8"):
        model.trace(TOKENS, capture="logits")


def test_what_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelOpenError, match=r"x\.gguf"):
        llmtrace.open(tmp_path / "x.gguf", backend="llamacpp")


@pytest.fixture(scope="module")
def real(smollm2):
    with llmtrace.open(smollm2, backend="llamacpp") as model:
        yield model


@pytest.mark.slow
class TestSmolLM2:
    def test_every_equation_holds_on_the_packed_weights(self, real):
        verdicts = real.verify("When Mary and John went to the store, John gave a drink to")
        assert [error.site for error in verdicts if error.status == "violated"] == []
        assert sum(error.status == "holds" for error in verdicts) > 500

    def test_it_reads_and_says_text(self, real):
        assert real.predict("The capital of France is").text == " Paris"
        tokens = real.tokens("Zoë says 東京 🙂")
        raw = b"".join(token.bytes if token.bytes is not None else token.text.encode() for token in tokens)
        assert raw.decode() == "Zoë says 東京 🙂"

    def test_its_record_says_that_the_weights_ran_packed(self, real):
        assert real.info.weights.endswith("packed") and real.info.weights.startswith("Q4_1")
        assert real.info.settings["cache"] == "f16"

    def test_its_known_heads_are_found_in_the_patterns(self, real):
        """Induction and previous-token heads, as measured with transformers on the same weights."""
        period = 25
        half = np.random.default_rng(0).integers(1000, real.spec.vocab - 1000, period)
        trace = real.trace([int(token) for token in np.tile(half, 2)], capture="blocks.*.attn.{rot_q,rot_k}")
        rows = np.arange(period, 2 * period)
        induction, previous = {}, {}
        for layer in range(len(real.spec.blocks)):
            for head, pattern in enumerate(trace[f"blocks.{layer}.attn.pattern"].array):
                induction[layer, head] = pattern[rows, rows - period + 1].mean()
                previous[layer, head] = pattern[np.arange(1, 2 * period), np.arange(2 * period - 1)].mean()
        assert set(sorted(induction, key=induction.get)[-3:]) == {(18, 6), (17, 3), (17, 4)}
        assert set(sorted(previous, key=previous.get)[-2:]) == {(16, 0), (11, 1)}
        assert min(induction[18, 6], previous[16, 0]) > 0.8
