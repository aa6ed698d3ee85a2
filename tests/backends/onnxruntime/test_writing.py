"""Models as ONNX files. The oracle of a file is ONNX Runtime, beside the equations in float64 and the weights that the file is said to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from llmtrace.errors import ModelOpenError, OptionError, UnsupportedModelError
from llmtrace.families import spec_of
from llmtrace.spec import Moe
from llmtrace.testing import tiny_model
from llmtrace.testing.model import FAMILIES
from llmtrace.testing.tiny import TINY
from llmtrace_onnxruntime.writing import KINDS, STYLES, stored, write_onnx
from llmtrace_onnxruntime.writing.blocks import BLOCK, levels, packed, unpacked
from tests.backends.onnxruntime.written import TOKENS, batch, computed, drawn, expected, off

ROUNDING = {"float32": 1e-5, "float16": 2e-2, "int4": 1e-5}
"""Of the largest logit: what the type that is computed in explains. The weights are those of the file."""
SHARED = ("shared_expert_intermediate_size", "shared_intermediate_size")
CANNOT = {
    ("multihead", "gemma2"): "MultiHeadAttention cannot say a soft cap",
    ("multihead", "vaultgemma"): "MultiHeadAttention cannot say a soft cap",
    ("multihead", "gpt_oss"): "MultiHeadAttention cannot say sinks",
    ("onnx23", "gpt_oss"): "Attention cannot say sinks",
    ("fused", "glm4_moe"): "MoE cannot say scores by a sigmoid",
    ("fused", "dots1"): "MoE cannot say scores by a sigmoid",
}
"""By style and family."""
INT4 = {("fused", "mixtral"): "MoE cannot say experts of int4"}
NAMES = ("blocks", "attn", "mlp", "embed", "ln", "W_", "weight", "bias", "norm", "head", "query", "key", "proj")


def of_family(family: str):
    """Of the family's config in the kit, shared experts as wide as whole blocks."""
    config = {"model_type": family, **TINY[family]}
    return drawn(spec_of({**config, **{key: 64 for key in SHARED if key in config}}))


def refused(model, family: str, style: str, directory: Path, kind: str = "float32") -> bool:
    """Whether the style cannot say the family: then it says so, and writes nothing."""
    words = CANNOT.get((style, family)) or (INT4.get((style, family)) if kind == "int4" else None)
    if words is None:
        return False
    with pytest.raises(UnsupportedModelError, match=words):
        write_onnx(model, directory / "refused.onnx", kind, style)
    assert not (directory / "refused.onnx").exists()
    return True


def nodes(path: Path) -> list[str]:
    return [f"{node.domain}.{node.op_type}".lstrip(".") for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", STYLES)
def test_the_kit_s_models_compute_what_the_equations_say(family, style, tmp_path):
    model = tiny_model(family, tmp_path / family)
    if refused(model, family, style, tmp_path):
        return
    found = computed(write_onnx(model, tmp_path / "model.onnx", style=style), model.tokens)
    assert off(found, expected(model.spec, model.weights, model.tokens)) < ROUNDING["float32"]


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("style", STYLES)
def test_every_family_computes_what_the_equations_say(family, style, tmp_path):
    model = of_family(family)
    if refused(model, family, style, tmp_path):
        return
    path = write_onnx(model, tmp_path / "model.onnx", style=style)
    assert off(computed(path), expected(model.spec, model.weights)) < ROUNDING["float32"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", ["float16", "int4"])
def test_coarser_kinds_compute_with_the_weights_that_they_store(family, style, kind, tmp_path):
    model = of_family(family)
    if refused(model, family, style, tmp_path, kind):
        return
    path = write_onnx(model, tmp_path / "model.onnx", kind, style)
    found, weights = computed(path), stored(model, kind)
    assert found.dtype == (np.float16 if kind == "float16" else np.float32)
    assert off(found, expected(model.spec, weights)) < ROUNDING[kind]
    assert off(expected(model.spec, model.weights), expected(model.spec, weights)) > 1e-4, "the kind is felt"


@pytest.mark.parametrize("family", ["qwen2_moe", "gemma", "gpt2", "phi"])
def test_int4_holds_for_shared_experts_ties_and_biases(family, tmp_path):
    model = of_family(family)
    path = write_onnx(model, tmp_path / "model.onnx", "int4")
    assert off(computed(path), expected(model.spec, stored(model, "int4"))) < ROUNDING["int4"]
    assert {"com.microsoft.MatMulNBits", "com.microsoft.GatherBlockQuantized"} <= set(nodes(path))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rewritten_graph_computes_the_same(family, tmp_path):
    model = of_family(family)
    path = write_onnx(model, tmp_path / "model.onnx")
    assert off(computed(path, level="ORT_ENABLE_ALL"), expected(model.spec, model.weights)) < ROUNDING["float32"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2", "falcon"])
@pytest.mark.parametrize("style", STYLES)
def test_prompts_of_a_batch_do_not_know_of_each_other_or_of_padding(family, style, tmp_path):
    model = of_family(family)
    if refused(model, family, style, tmp_path):
        return
    path = write_onnx(model, tmp_path / "model.onnx", style=style)
    lengths = (len(TOKENS), 4)
    ids = [[*TOKENS[:length], *[0] * (len(TOKENS) - length)] for length in lengths]
    real = [[int(place < length) for place in range(len(TOKENS))] for length in lengths]
    found = batch(path, ids, real)
    for row, length in enumerate(lengths):
        assert off(found[row, :length], expected(model.spec, model.weights, TOKENS[:length])) < ROUNDING["float32"]


@pytest.mark.parametrize("family", ["llama", "falcon"])
@pytest.mark.parametrize("style", [style for style in STYLES if style != "fused"])
def test_padding_in_front_is_seen_by_nobody(family, style, tmp_path):
    """Where positions are relative, so that it only moves them. GroupQueryAttention takes padding at the end alone."""
    model, padding = of_family(family), 5
    path = write_onnx(model, tmp_path / "model.onnx", style=style)
    found = batch(path, [[7] * padding + list(TOKENS)], [[0] * padding + [1] * len(TOKENS)])
    assert off(found[0, padding:], expected(model.spec, model.weights)) < ROUNDING["float32"]


@pytest.mark.parametrize("family", TINY)
def test_the_plain_style_is_valid_onnx_of_opset_17(family, tmp_path):
    path = write_onnx(of_family(family), tmp_path / "model.onnx")
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]


def test_each_style_has_its_operators(tmp_path):
    llama, gelu, moe = (of_family(family) for family in ("mistral", "gemma", "mixtral"))
    seen = {style: set(nodes(write_onnx(llama, tmp_path / "model.onnx", style=style))) for style in STYLES}
    own = "com.microsoft."
    assert not [name for name in seen["plain"] | seen["onnx23"] if name.startswith(own)]
    norms = {"SimplifiedLayerNormalization", f"{own}SkipSimplifiedLayerNormalization", f"{own}QuickGelu"}
    assert norms | {f"{own}GroupQueryAttention"} <= seen["fused"]
    assert norms | {f"{own}RotaryEmbedding", f"{own}MultiHeadAttention"} <= seen["multihead"]
    assert {"RMSNormalization", "RotaryEmbedding", "Attention"} <= seen["onnx23"]
    assert f"{own}FastGelu" in nodes(write_onnx(gelu, tmp_path / "model.onnx", style="fused"))
    assert f"{own}MoE" in nodes(write_onnx(moe, tmp_path / "model.onnx", style="fused"))
    experts = nodes(write_onnx(moe, tmp_path / "model.onnx"))
    assert experts.count("TopK") == sum(isinstance(block.branches[-1].module, Moe) for block in moe.spec.blocks)


def test_attention_that_turns_by_itself_reads_one_product(tmp_path):
    """As ONNX Runtime's builder writes it: no matrix for each of q, k and v."""
    model = of_family("granite")
    proto = onnx.load(write_onnx(model, tmp_path / "model.onnx", style="fused"))
    cores = [node for node in proto.graph.node if node.op_type == "GroupQueryAttention"]
    assert len(cores) == len(model.spec.blocks)
    assert all(list(node.input[1:3]) == ["", ""] and node.input[7] for node in cores)


@pytest.mark.parametrize("style", STYLES)
def test_names_say_nothing(style, tmp_path):
    proto = onnx.load(write_onnx(of_family("granite"), tmp_path / "model.onnx", style=style))
    ends = {*(each.name for each in proto.graph.input), "logits"}
    assert [each.name for each in proto.graph.input] == ["input_ids", "attention_mask"]
    names = {name for node in proto.graph.node for name in (node.name, *node.input, *node.output)} - ends
    assert not [name for name in names if any(part in name for part in NAMES)]


def test_a_tied_head_has_no_weights_of_its_own(tmp_path):
    spec = of_family("gemma").spec
    assert spec.unembed.tied
    for kind in KINDS:
        sizes = [
            write_onnx(drawn(evolve(spec, unembed=evolve(spec.unembed, tied=tied))), tmp_path / "a.onnx", kind)
            .stat()
            .st_size
            for tied in (True, False)
        ]
        assert sizes[1] - sizes[0] > spec.vocab * spec.d_model * {"float32": 4, "float16": 2, "int4": 0.5}[kind] * 0.9


def test_levels_are_the_nearest_and_come_back_from_their_bytes():
    matrix = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    matrix[:BLOCK, 2] = 0
    found, scales = levels(matrix)
    assert found.min() >= 1
    assert found.max() <= 15
    away = np.abs(unpacked(found, scales) - matrix).T.reshape(5, 2, BLOCK)
    assert (away <= scales[..., None] * 0.5001).all()
    assert not away[2, 0].any()
    low, high = packed(found) & 15, packed(found) >> 4
    assert np.array_equal(np.stack([low, high], -1).reshape(found.shape), found)


def test_what_is_no_whole_number_of_blocks_is_refused_for_int4_only(tmp_path):
    model = drawn(spec_of({"model_type": "llama", **TINY["llama"], "intermediate_size": 40}))
    write_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(UnsupportedModelError, match="Columns of 40 weights"):
        write_onnx(model, tmp_path / "other.onnx", "int4")


def test_the_same_model_is_the_same_bytes(tmp_path):
    for style in STYLES:
        first, again = (
            write_onnx(of_family("llama"), tmp_path / f"{n}.onnx", style=style).read_bytes() for n in (1, 2)
        )
        assert first == again


@pytest.mark.parametrize("kind", KINDS)
def test_weights_beside_the_graph_give_the_same_bits(kind, tmp_path):
    model = of_family("llama")
    alone = write_onnx(model, tmp_path / "alone.onnx", kind)
    path = write_onnx(model, tmp_path / "model.onnx", kind, external=True)
    (data,) = tmp_path.glob("model.onnx.*.data")
    assert alone.stat().st_size - path.stat().st_size > 0.9 * data.stat().st_size > 0.5 * alone.stat().st_size
    assert np.array_equal(computed(path), computed(alone))
    onnx.checker.check_model(str(path))


def test_a_graph_never_meets_the_weights_of_another(tmp_path):
    """Writing anew leaves the old weights until the new graph is there."""
    one, two = of_family("llama"), drawn(of_family("llama").spec, 1)
    old = write_onnx(one, tmp_path / "model.onnx", external=True).read_bytes()
    wanted = computed(tmp_path / "model.onnx")
    write_onnx(two, tmp_path / "model.onnx", external=True)
    assert not np.array_equal(computed(tmp_path / "model.onnx"), wanted)
    (tmp_path / "model.onnx").write_bytes(old)
    assert np.array_equal(computed(tmp_path / "model.onnx"), wanted)


@pytest.mark.parametrize("external", [False, True])
def test_what_fails_leaves_the_old_file_and_no_other(external, tmp_path, monkeypatch):
    path = write_onnx(of_family("llama"), tmp_path / "model.onnx")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_onnx(of_family("gpt2"), path, external=external)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_bad_input_is_named_and_nothing_is_written(tmp_path):
    model, path = of_family("llama"), tmp_path / "model.onnx"
    with pytest.raises(OptionError, match="not as 'float8'"):
        write_onnx(model, path, "float8")
    with pytest.raises(OptionError, match="Did you mean fused"):
        write_onnx(model, path, style="fuse")
    name = "blocks.1.attn.W_Q"
    with pytest.raises(ModelOpenError, match=f"no weight {name}"):
        write_onnx(evolve(model, weights={key: each for key, each in model.weights.items() if key != name}), path)
    with pytest.raises(ModelOpenError, match=rf"{name} .* shape \[1\]"):
        write_onnx(evolve(model, weights={**model.weights, name: np.ones(1)}), path)
    with pytest.raises(OptionError, match="not as 'Q4'"):
        stored(model, "Q4")
    assert not list(tmp_path.iterdir())
