"""What a stranger's file of a known architecture may say, and the tiny models do not: it is computed as llama.cpp does, or refused by
name. llama.cpp's own logits are the oracle: for what it heeds they move, and for what it passes over they stay to the bit.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import llmtrace
from llmtrace.errors import LLMTraceError
from llmtrace_llamacpp.weights import open_gguf
from tests.backends.llamacpp.splitting import copied, tensors_of
from tests.backends.llamacpp.tiny import MODELS, changed, computed, llama_cpp, write_gguf

TOKENS = (5, 17, 3, 88, 41, 41, 9, 60)
GELUS = ("gemma2", "gemma3_text", "mpt")
"""Whose activation is looked up in a table of half precision."""
OTHER = {
    "a bare llama": ("llama", {"attention_bias": False, "mlp_bias": False}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = {}

    def get(name, architecture=""):
        if (name, architecture) not in made:
            family, overrides = {**MODELS, **OTHER}[name]
            directory = tmp_path_factory.mktemp("gguf")
            model = changed(family, **overrides)
            made[name, architecture] = write_gguf(model, directory / "tiny.gguf", architecture=architecture)
        return made[name, architecture]

    return get


def own(path, metadata):
    """Keys with the architecture's name before them, but for those of all architectures."""
    name = gguf.GGUFReader(path).fields["general.architecture"].contents()
    return {
        key if key.startswith(("tokenizer.", "general.")) else f"{name}.{key}": value for key, value in metadata.items()
    }


def agrees(path, tolerance=2e-6):
    """Every equation holds, and the logits are those of the equations; returns llama.cpp's."""
    with llmtrace.open(path, backend="llamacpp", preset="exact", options={"guard": False}) as model:
        verdicts = model.verify(list(TOKENS))
    assert [(error.site, error.relative_error) for error in verdicts if error.status == "violated"] == []
    assert sum(error.status == "holds" for error in verdicts) > 40
    ours, theirs = computed(path, TOKENS), llama_cpp(path, TOKENS)
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()
    return theirs


YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 4096,
}  # fmt: skip
BOOLS = {"attention.sliding_window_pattern": [False, True, True]}
HEEDED = {
    "windows by a list": ("gemma2", BOOLS),
    "windows by another list": ("cohere2", BOOLS),
    "windows by a list, of GPT-OSS": ("gpt_oss", BOOLS),
    "windows by a list, of OLMo 3": ("olmo3", {"attention.sliding_window_pattern": [False, False, True]}),
    "windows by a period": ("gemma3_text", {"attention.sliding_window_pattern": 2}),
    "windows everywhere": ("cohere2", {"attention.sliding_window_pattern": 0, "attention.sliding_window": 3}),
    "windows of the usual width": ("gemma2", {"attention.sliding_window": None}),
    "no windows": ("gemma3_text", {"attention.sliding_window": 0}),
    "another base in windows": ("gemma3_text", {"rope.freq_base_swa": 500.0}),
    "another base in windows, of GPT-OSS": ("gpt_oss", {"rope.freq_base_swa": 500.0}),
    "YaRN": ("llama", YARN),
    "YaRN without the original context": ("llama", {**YARN, "rope.scaling.original_context_length": None}),
    "YaRN and a factor": ("llama", {**YARN, "rope.scaling.attn_factor": 1.3}),
    "a factor alone": ("llama", {"rope.scaling.attn_factor": 1.3}),
    "the old key of a linear stretch": ("llama", {"rope.scale_linear": 4.0}),
    "no rotary embedding, of Granite": ("granite", {"rope.scaling.finetuned": False}),
    "Granite without a scale of attention": ("granite", {"attention.scale": None}),
    "no scales, of Granite": ("granite", {"residual_scale": None, "embedding_scale": None}),
    "clipping": ("mpt", {"attention.clamp_kqv": 0.05}),
    "a scale of experts": ("dots1", {"expert_weights_scale": 2.5}),
    "experts' weights made to sum to one": ("dots1", {"expert_weights_norm": False}),
    "experts scored by a softmax": ("glm4_moe", {"expert_gating_func": 1}),
    "no softcap said": ("gemma2", {"final_logit_softcapping": None}),
}


@pytest.mark.parametrize("case", HEEDED)
def test_what_llama_cpp_heeds_is_in_the_spec(case, files, tmp_path):
    name, metadata = HEEDED[case]
    plain = files(name)
    tolerance = 1e-3 if name in GELUS else 4e-6
    other = agrees(copied(plain, tmp_path / "other.gguf", own(plain, metadata)), tolerance)
    assert np.abs(other - llama_cpp(plain, TOKENS)).max() > 0


PASSED_OVER = {
    "keys that nobody knows": ("llama", {"made_up": 3, "tokenizer.made_up": [1, 2], "general.tags": ["a", "b"]}),
    "a number of tokens": ("llama", {"vocab_size": None}),
    "another number of tokens": ("llama", {"vocab_size": 50}),
    "heads, layer by layer": ("llama", {"attention.head_count": [4, 4, 4], "attention.head_count_kv": [2, 2, 2]}),
    "widths, layer by layer": ("llama", {"feed_forward_length": [96, 96, 96]}),
    "no base": ("llama", {"rope.freq_base": None}),
    "no width of the rotary embedding": ("llama", {"rope.dimension_count": None}),
    "a stretch without a factor": ("llama", {"rope.scaling.type": "linear"}),
    "a scale of attention": ("llama", {"attention.scale": 0.3}),
    "softcaps": ("llama", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "a clip": ("llama", {"attention.clamp_kqv": 0.2}),
    "scales of Granite": ("llama", {"residual_scale": 0.2, "embedding_scale": 2.0, "logit_scale": 0.2}),
    "ALiBi": ("llama", {"attention.max_alibi_bias": 8.0}),
    "a window": ("llama", {"attention.sliding_window": 4}),
    "a rotary embedding in sections": ("llama", {"rope.dimension_sections": [4, 4, 4, 0]}),
    "a list of rotary layers": ("llama", {"rope.scaling.finetuned": False}),
    "a base in windows": ("cohere2", {"rope.freq_base_swa": 500.0}),
    "a base in windows, of OLMo 3": ("olmo3", {"rope.freq_base_swa": 500.0}),
    "a scale of experts": ("mixtral", {"expert_weights_scale": 2.5, "expert_gating_func": 2}),
    "how experts' weights are normed": ("qwen2_moe", {"expert_weights_norm": True}),
    "windows, of EXAONE 4 with few layers": ("exaone4", {"attention.sliding_window": 2}),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_what_llama_cpp_passes_over_is_not_in_the_spec(case, files, tmp_path):
    name, metadata = PASSED_OVER[case]
    plain = files(name)
    other = agrees(copied(plain, tmp_path / "other.gguf", own(plain, metadata)))
    np.testing.assert_array_equal(other, llama_cpp(plain, TOKENS))


REFUSED = {
    "attention in both directions": ("llama", {"attention.causal": False}, "llama.attention.causal = false"),
    "experts by groups": ("mixtral", {"expert_group_count": 2, "expert_group_used_count": 1}, "llama.expert_group_count = 2"),
    "a window of nothing": ("cohere2", {"attention.sliding_window": 0}, "a window of 0 tokens"),
    "a window in no layer": ("gemma2", {"attention.sliding_window_pattern": 1}, "gives it to no layer"),
    "a scoring that nobody knows": ("dots1", {"expert_gating_func": 3}, "dots1.expert_gating_func = 3"),
    "no scoring": ("dots1", {"expert_gating_func": None}, "dots1.expert_gating_func = None"),
    "no ALiBi, of MPT": ("mpt", {"attention.max_alibi_bias": 0.0}, "alibi=False"),
    "positions of pictures": ("glm4", {"rope.dimension_sections": [2, 2, 2, 0]}, "glm4.rope.dimension_sections"),
    "heads that differ": ("llama", {"attention.head_count_kv": [2, 4, 2]}, "not the same in all"),
    "more spare blocks than blocks": ("glm4_moe", {"nextn_predict_layers": 3}, "nextn_predict_layers = 3, of 3 blocks"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_expressed_is_refused_by_its_key(case, files, tmp_path):
    name, metadata, words = REFUSED[case]
    path = copied(files(name), tmp_path / "other.gguf", own(files(name), metadata))
    with pytest.raises(LLMTraceError, match=words.replace("[", r"\[")) as caught:
        llmtrace.open(path, backend="llamacpp", options={"guard": False})
    assert "other.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_exaone_4_has_windows_if_it_has_64_layers(tmp_path):
    """And no rotary embedding in the others, one of four unless the file says otherwise."""
    small = {"head_dim": 8, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 64, "sliding_window": 3}
    model = changed("exaone4", **small, layer_types=["sliding_attention"] * 64)
    plain, found = write_gguf(model, tmp_path / "tiny.gguf"), {}
    for pattern in (4, 2):
        keys = {"exaone4.attention.sliding_window_pattern": pattern}
        path = copied(plain, tmp_path / f"{pattern}.gguf", keys)
        windows = [block.attention.window for block in open_gguf(path).spec.blocks]
        assert windows == [None if (layer + 1) % pattern == 0 else 3 for layer in range(64)]
        found[pattern] = llama_cpp(path, TOKENS)
        assert np.abs(computed(path, TOKENS) - found[pattern]).max() < 4e-6 * np.abs(found[pattern]).max()
    np.testing.assert_array_equal(found[4], llama_cpp(plain, TOKENS))
    assert np.abs(found[4] - found[2]).max() > 0


def test_without_an_output_the_embedding_is_it(files, tmp_path):
    agrees(copied(files("llama"), tmp_path / "other.gguf", tensors={"output.weight": None}))


def test_with_an_output_of_its_own_a_tied_model_is_not_tied(files, tmp_path):
    output = tensors_of(files("llama"))["output.weight"]
    path = copied(files("a tied llama"), tmp_path / "other.gguf", tensors={"output.weight": output})
    assert np.abs(agrees(path) - llama_cpp(files("a tied llama"), TOKENS)).max() > 0


@pytest.mark.parametrize("layers", [(0, 1, 2), (1,)])
def test_biases_of_some_matrices_in_some_layers(files, tmp_path, layers):
    without = {f"blk.{layer}.attn_{name}.bias": None for layer in layers for name in ("k", "output")}
    path = copied(files("llama"), tmp_path / "other.gguf", tensors=without)
    assert np.abs(agrees(path) - llama_cpp(files("llama"), TOKENS)).max() > 0


def test_divisors_of_the_frequencies(files, tmp_path):
    path = copied(
        files("llama"), tmp_path / "other.gguf", tensors={"rope_freqs.weight": np.linspace(1, 8, 12, dtype="f4")}
    )
    assert np.abs(agrees(path) - llama_cpp(files("llama"), TOKENS)).max() > 0


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_q_k_and_v_in_one_tensor(name, files, tmp_path):
    """Of a llama their rows stand in pairs."""
    found, tensors = tensors_of(files(name)), {}
    for layer in range(3):
        for kind in ("weight", "bias"):
            pieces = [f"blk.{layer}.attn_{letter}.{kind}" for letter in "qkv"]
            tensors |= dict.fromkeys(pieces) | {
                f"blk.{layer}.attn_qkv.{kind}": np.concatenate([found[p] for p in pieces])
            }
    other = agrees(copied(files(name), tmp_path / "other.gguf", tensors=tensors))
    assert np.abs(other - llama_cpp(files(name), TOKENS)).max() < 1e-5


def test_blocks_that_predict_further_tokens_are_no_part_of_the_stream(files, tmp_path):
    """GLM 4.5 has one, counted among its blocks."""
    random, found = np.random.default_rng(0), tensors_of(files("glm4_moe"))
    spare = {name.replace("blk.2.", "blk.3."): array for name, array in found.items() if name.startswith("blk.2.")}
    spare |= {f"blk.3.nextn.{name}.weight": random.normal(size=64).astype("f4") for name in ("enorm", "hnorm")}
    spare["blk.3.nextn.eh_proj.weight"] = random.normal(size=(64, 128)).astype("f4")
    keys = {"glm4moe.block_count": 4, "glm4moe.nextn_predict_layers": 1}
    other = agrees(copied(files("glm4_moe"), tmp_path / "other.gguf", keys, spare))
    np.testing.assert_array_equal(other, llama_cpp(files("glm4_moe"), TOKENS))


def test_more_rows_than_tokens_are_refused_in_the_words_of_llama_cpp(files, tmp_path):
    rows = {f"{name}.weight": np.zeros((104, 64), "f4") for name in ("token_embd", "output")}
    path = copied(files("llama"), tmp_path / "other.gguf", {"llama.vocab_size": 104}, rows)
    with pytest.raises(LLMTraceError, match=r"token_embd.weight' has wrong shape; expected +64, +97, got +64, +104"):
        llmtrace.open(path, backend="llamacpp", options={"guard": False})


def test_a_file_without_a_tokenizer_has_as_many_tokens_as_it_says(files, tmp_path):
    none = {f"tokenizer.ggml.{key}": None for key in ("tokens", "merges", "token_type")} | {
        "tokenizer.ggml.model": "none"
    }
    agrees(copied(files("llama"), tmp_path / "other.gguf", none))


def test_a_tensor_that_no_equation_reads_is_named(files, tmp_path):
    path = copied(
        files("llama"), tmp_path / "other.gguf", tensors={"blk.0.attn_other.weight": np.zeros((64, 64), "f4")}
    )
    with pytest.raises(LLMTraceError, match=r"blk.0.attn_other.weight is in .*other.gguf, and no equation"):
        llmtrace.open(path, backend="llamacpp", options={"guard": False})


@pytest.mark.parametrize("which", ["norm.weight", "bias"])
def test_norms_and_biases_of_half_precision_end_the_process_that_tries_them(files, tmp_path, which):
    tensors = {name: array.astype("f2") for name, array in tensors_of(files("llama")).items() if name.endswith(which)}
    path = copied(files("llama"), tmp_path / "other.gguf", tensors=tensors)
    with pytest.raises(
        LLMTraceError, match=r"other.gguf makes llama.cpp end its process .*unsupported types.* src1: f16"
    ):
        llmtrace.open(path, backend="llamacpp")


@pytest.mark.parametrize("name", ["a tied llama", "llama"])
def test_an_embedding_of_8_bits_tied_or_not(name, files, tmp_path):
    family, overrides = MODELS[name]
    path = write_gguf(changed(family, **overrides), tmp_path / "tiny.gguf", "Q8_0")
    with llmtrace.open(path, backend="llamacpp", options={"guard": False}) as model:
        assert model.session.stored["embed.W_E"] == model.session.stored["unembed.W_U"] == "Q8_0"
        assert [error.site for error in model.verify(list(TOKENS)) if error.status == "violated"] == []


class TestMinistral:
    """Its attention is sharper beyond the original context."""

    SHARP = {"mistral3.rope.scaling.original_context_length": 8, "mistral3.attention.temperature_scale": 0.1}

    @pytest.fixture
    def plain(self, files):
        return files("a bare llama", "mistral3")

    def test_within_it_every_equation_holds_and_beyond_it_a_prompt_is_refused(self, plain, tmp_path):
        path = copied(plain, tmp_path / "other.gguf", {**self.SHARP, "mistral3.attention.temperature_length": 8})
        agrees(path)
        with (
            llmtrace.open(path, backend="llamacpp", options={"guard": False}) as model,
            pytest.raises(LLMTraceError, match="over the model's context of 8"),
        ):
            model.trace([*TOKENS, 3])

    @pytest.mark.parametrize("multiplier", [0.0, 1.0, 0.5])
    def test_yarns_factor_is_divided_by_its_own(self, plain, tmp_path, multiplier):
        keys = own(plain, YARN | {"rope.scaling.yarn_log_multiplier": multiplier})
        agrees(copied(plain, tmp_path / "other.gguf", keys))


def test_minicpm_without_scales_has_those_of_its_first_model(files, tmp_path):
    plain = files("granite", "minicpm")
    keys = dict.fromkeys(["minicpm.embedding_scale", "minicpm.residual_scale", "minicpm.logit_scale"])
    assert np.abs(agrees(copied(plain, tmp_path / "other.gguf", keys)) - llama_cpp(plain, TOKENS)).max() > 0


@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe"])
def test_experts_whose_width_is_not_said_share_that_of_the_mlp(name, files, tmp_path):
    keys = own(files(name), {"expert_feed_forward_length": None, "feed_forward_length": 64})
    path = copied(files(name), tmp_path / "other.gguf", keys)
    np.testing.assert_array_equal(agrees(path), llama_cpp(files(name), TOKENS))
