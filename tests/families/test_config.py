"""What configs say, in every spelling, with what they leave out; and what is refused by name."""

from __future__ import annotations

import functools
import json
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import FAMILIES, REFUSED, family, spec_of
from llmtrace.families.config import Config
from llmtrace.spec import Branch, GatedMlp, Norm
from llmtrace.testing.tiny import TINY

LLAMA = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 64,
}  # fmt: skip


def written(name, tmp_path, **overrides):
    """The config.json that transformers writes."""
    import transformers

    transformers.AutoConfig.for_model(name, **{**TINY[name], **overrides}).save_pretrained(tmp_path)
    return json.loads((tmp_path / "config.json").read_text())


def in_full(name, **overrides):
    """All that transformers' config class says, defaults too."""
    import transformers

    return transformers.AutoConfig.for_model(name, **{**TINY[name], **overrides}).to_dict()


@pytest.mark.parametrize("name", TINY)
def test_the_written_config_means_what_the_full_one_means(name, tmp_path):
    assert spec_of(written(name, tmp_path)) == spec_of(in_full(name))


def test_every_default_is_transformers_own():
    import transformers

    checked = 0
    for name, row in FAMILIES.items():
        own = type(transformers.AutoConfig.for_model("gemma3_text" if name == "gemma3" else name))
        for key, value in row.defaults.items():
            spelling = row.spellings.get(key, key) if hasattr(own, row.spellings.get(key, key)) else key
            if hasattr(own, spelling) and key != "rope_parameters":  # rotary defaults have tests of their own
                assert getattr(own, spelling) == value, (name, key)
                checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    "name", sorted(set(TINY) - {"bloom", "mpt", "gpt2", "gpt_neo", "gpt_bigcode", "opt", "gptj", "codegen"})
)
def test_the_default_rotary_is_transformers_own(name):
    config = in_full(name)
    bare = {key: value for key, value in config.items() if not key.startswith("rope")}
    assert spec_of(bare) == spec_of(config)


SEVERAL = [
    "ministral",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma2",
    "vaultgemma",
    "gemma3_text",
    "olmo3",
    "exaone4",
    "cohere2",
    "qwen2_moe",
]


@pytest.mark.parametrize("name", [*SEVERAL, "dots1", "gpt_oss"])
def test_kinds_of_layers_that_are_not_listed_are_transformers_own(name):
    changes = {"num_hidden_layers": 7, "sliding_window": 5, "layer_types": None, "max_window_layers": 3}
    config = in_full(name, **changes, use_sliding_window=True)
    windows = {block.attention.window for block in spec_of(config).blocks}
    assert 5 in windows
    bare = {key: value for key, value in config.items() if key not in ("layer_types", "no_rope_layers")}
    assert spec_of(bare) == spec_of(config)


def old(config):
    """The config as transformers 4 wrote it."""
    given = dict(config.pop("rope_parameters"))
    config["rope_theta"] = given.pop("rope_theta")
    if "partial_rotary_factor" in given:
        config["partial_rotary_factor"] = given.pop("partial_rotary_factor")
    config["rope_scaling"] = given if given["rope_type"] != "default" else None
    return config


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt_oss", "stablelm", "glm4"]
)
def test_the_old_spelling_gives_the_same_spec(name):
    assert spec_of(old(in_full(name))) == spec_of(in_full(name))


def test_gpt_neox_spells_its_rotary_in_its_own_way():
    config = in_full(
        "gpt_neox", rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    )
    spec = spec_of(config)
    del config["rope_parameters"]
    assert spec_of(config | {"rotary_pct": 0.5, "rotary_emb_base": 500.0}) == spec


def test_gemma3_spells_two_bases_and_a_pattern():
    config = in_full("gemma3_text", rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    })  # fmt: skip
    spec = spec_of(config)
    plain = {
        key: value
        for key, value in config.items()
        if key not in ("rope_parameters", "layer_types", "_sliding_window_pattern")
    }
    spelled = {
        "rope_theta": 500.0,
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    assert spec_of(plain | spelled | {"sliding_window_pattern": 3}) == spec


def test_gemma3_with_pictures_is_read_as_its_text_model():
    text = in_full("gemma3_text")
    assert spec_of({"model_type": "gemma3", "text_config": text, "vision_config": {}}) == spec_of(text)
    del text["tie_word_embeddings"]
    assert spec_of({"model_type": "gemma3", "text_config": text}).unembed.tied
    assert not spec_of({"model_type": "gemma3", "text_config": text, "tie_word_embeddings": False}).unembed.tied
    with pytest.raises(ModelOpenError, match="text_config that is not an object"):
        spec_of({"model_type": "gemma3", "text_config": 5})


def test_other_spellings_of_sizes_are_read():
    neo = {
        "model_type": "gpt2",
        "vocab_size": 97,
        "hidden_size": 64,
        "n_layer": 2,
        "num_attention_heads": 4,
        "n_positions": 64,
    }
    assert spec_of(neo).d_model == 64
    bloom = {"model_type": "bloom", "vocab_size": 97, "n_embed": 64, "n_layer": 2, "num_attention_heads": 4}
    assert spec_of(bloom).d_model == 64


def test_what_is_left_out_has_transformers_defaults():
    spec = spec_of(LLAMA)
    attention = spec.blocks[0].attention
    assert (attention.kv_heads, attention.d_head, attention.rotary.theta, attention.biases) == (4, 16, 10000.0, "")
    assert spec.ln_final.eps == 1e-6
    assert not spec.unembed.tied
    assert isinstance(spec.blocks[0].branch("mlp").module, GatedMlp)


def test_null_is_not_a_default():
    mistral = LLAMA | {"model_type": "mistral", "num_key_value_heads": 2}
    assert spec_of(mistral).blocks[0].attention.window == 4096
    assert spec_of(mistral | {"sliding_window": None}).blocks[0].attention.window is None


def test_context_is_the_longest_prompt():
    assert spec_of(LLAMA).context == 64
    assert spec_of(in_full("gpt2")).context == 64
    assert spec_of(in_full("bloom")).context is None
    assert spec_of(in_full("falcon")).context is None
    assert spec_of(in_full("falcon", alibi=False)).context == 64


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"]
)
def test_a_missing_size_is_named(key):
    with pytest.raises(ModelOpenError, match=f"lacks '{key}', which a llama model must state"):
        spec_of({name: value for name, value in LLAMA.items() if name != key})


def test_a_missing_size_is_named_in_the_familys_own_spelling():
    with pytest.raises(ModelOpenError, match="lacks 'n_embd'"):
        spec_of({"model_type": "gpt2", "vocab_size": 97, "n_layer": 2, "n_head": 4, "n_positions": 64})


REFUSALS = {
    "an unknown activation": (
        LLAMA | {"hidden_act": "gelu_nwe"},
        r"llama uses the activation 'gelu_nwe'.* Did you mean gelu_new",
    ),
    "linear attention": (
        LLAMA | {"model_type": "qwen3", "layer_types": ["full_attention", "linear_attention"]},
        "qwen3 has layers of the kind 'linear_attention'",
    ),
    "OPT-350m": ({**TINY["opt"], "model_type": "opt", "do_layer_norm_before": False}, "opt as in OPT-350m"),
    "attention in both directions": (
        {**TINY["gemma"], "model_type": "gemma", "use_bidirectional_attention": True},
        "use_bidirectional",
    ),
    "a softcap that transformers ignores": (
        {**TINY["gemma3_text"], "model_type": "gemma3_text", "attn_logit_softcapping": 5.0},
        "gemma3_text with attn_logit_softcapping=5.0",
    ),
    "another clamp": ({**TINY["gpt_oss"], "model_type": "gpt_oss", "swiglu_alpha": 1.0}, "swiglu_alpha=1.0"),
    "MPT with norms on q and k": (
        {**TINY["mpt"], "model_type": "mpt", "attn_config": {"qk_ln": True}},
        "attn_config.qk_ln=True",
    ),
    "MPT of another steepness": (
        {**TINY["mpt"], "model_type": "mpt", "attn_config": {"alibi_bias_max": 4}},
        "alibi_bias_max=4",
    ),
    "a norm behind the residual": (
        {**TINY["bloom"], "model_type": "bloom", "apply_residual_connection_post_layernorm": True},
        "apply_residual_connection_post_layernorm=True",
    ),
    "a clip after norms": ({**TINY["olmoe"], "model_type": "olmoe", "clip_qkv": 5.0}, "olmoe with clip_qkv=5.0"),
}


@pytest.mark.parametrize("feature", REFUSALS)
def test_what_the_equations_cannot_express_is_refused_by_name(feature):
    config, message = REFUSALS[feature]
    with pytest.raises(UnsupportedModelError, match=message):
        spec_of(config)


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_be_expressed_is_refused_by_what_it_has(name):
    with pytest.raises(UnsupportedModelError, match=f"{name} models have"):
        family({"model_type": name})


def test_an_unknown_family_has_near_names():
    with pytest.raises(UnsupportedModelError, match=r"'gemma22' is not among .* Did you mean gemma2"):
        spec_of({"model_type": "gemma22"})
    with pytest.raises(ModelOpenError, match="lacks 'model_type'"):
        spec_of({})


BAD = {
    "heads that cannot be shared": ({"num_key_value_heads": 3}, "4 query heads, which 3 key/value heads cannot share"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers = 0; it must be a whole number from 1 to 2,000"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000; it must be"),
    "a billion layers, written as a fraction": (
        {"num_hidden_layers": 1e9},
        "num_hidden_layers = 1000000000.0; it must",
    ),
    "a text of a billion layers": ({"num_hidden_layers": "1000000000"}, "num_hidden_layers = '1000000000'; it must be"),
    "a billion heads": ({"num_attention_heads": 10**9}, "num_attention_heads = 1000000000; it must be"),
    "a billion slopes": ({"model_type": "bloom", "num_attention_heads": 10**9}, "num_attention_heads = 1000000000; it"),
    "text for a number": ({"hidden_size": "64"}, "unusable value"),
    "a fraction": ({"intermediate_size": 1.5}, "d_mlp = 1.5"),
    "a negative vocabulary": ({"vocab_size": -1}, "vocab = -1"),
    "text for an epsilon": ({"rms_norm_eps": "1e-5"}, "eps = '1e-5'; it must be a finite number"),
    "a multiplier that is no number": (
        {"model_type": "granite", "residual_multiplier": float("nan")},
        "multiplier = nan",
    ),
    "text for a rotary scaling": ({"rope_scaling": "linear"}, "unusable value"),
    "a window that shows nothing": (
        {"model_type": "mistral", "sliding_window": -1, "num_key_value_heads": 2},
        "window = -1; it must be a positive integer",
    ),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads = 0; it must be a whole number from 1 to"),
    "a text that would be repeated": ({"partial_rotary_factor": "x", "hidden_size": 2**61}, "unusable value"),
    "a list that would be repeated": (
        {**TINY["glm4_moe"], "model_type": "glm4_moe", "n_shared_experts": 2**31, "moe_intermediate_size": [1]},
        "unusable value",
    ),
    "a context that would be repeated": (
        {"rope_scaling": {"rope_type": "dynamic", "factor": "x"}, "max_position_embeddings": 2**61},
        "unusable value",
    ),
    "a pattern repeated for ever": (
        {"model_type": "gpt_neo", "attention_types": [[["global", "local"], 10**10]], "num_layers": 2},
        "gpt_neo needs 2 attention types",
    ),
    "a wrong number of layer types": (
        {"model_type": "qwen3", "layer_types": ["full_attention"]},
        "1 layer_types for 2 layers",
    ),
    "too many experts": (
        {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3, "num_key_value_heads": 4},
        "3 choices of 2 experts",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_config_that_contradicts_itself_is_an_error(fault):
    change, message = BAD[fault]
    with pytest.raises(ModelOpenError, match=message):
        spec_of(LLAMA | change)


def test_a_count_that_is_none_is_named_in_the_familys_own_spelling():
    for name, key in (("gpt2", "n_layer"), ("mpt", "n_heads")):
        with pytest.raises(ModelOpenError, match=f"gives {key} = an integer of too many digits; it must be"):
            spec_of({**TINY[name], "model_type": name, key: 10**5000})


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": "x"},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**5000},
        {"decoder_sparse_step": "a"},
        {"mlp_only_layers": 7},
        {"num_experts": 10**5000},
        {"moe_intermediate_size": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_depend_on_the_config_do_not_trip_over_it(change):
    with pytest.raises(ModelOpenError, match=r"unusable value|positive integer|whole number from 1"):
        spec_of({**TINY["qwen3_moe"], "model_type": "qwen3_moe"} | change)


@pytest.mark.parametrize("fault", ["text for an epsilon", "a multiplier that is no number"])
def test_it_is_an_error_also_once_the_types_of_the_records_are_resolved(fault):
    """Reading a saved trace does that, in place."""
    attrs.resolve_types(Norm)
    attrs.resolve_types(Branch)
    test_a_config_that_contradicts_itself_is_an_error(fault)


def test_a_config_is_a_mapping_with_defaults_beneath():
    config = Config({"model_type": "x", "n_embd": 3, "a": None}, {"a": 1, "b": 2}, {"hidden_size": "n_embd"})
    assert (config.hidden_size, config.a, config.b, config.get("c", 9)) == (3, None, 2, 9)
    assert sorted(config) == ["a", "b", "model_type", "n_embd"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.hidden_size = 4


def leaves(value, at=()):
    """The paths of all numbers, nulls and lists in a config."""
    if isinstance(value, dict):
        return [path for key in value for path in leaves(value[key], (*at, key))]
    inside = (
        [path for place in range(len(value)) for path in leaves(value[place], (*at, place))]
        if isinstance(value, list)
        else []
    )
    return [*inside, at] if value is None or isinstance(value, int | float | list) else inside


def put(value, path, new):
    """A config with one value replaced, however deep it stands."""
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


whole = functools.cache(in_full)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 10**4, 10**9, 10**12, 2**63, 10**400, 10**5000, 0.5, 1e9, 1e12, 1e300, -1e300]),
    st.sampled_from([float("inf"), float("nan"), True, None, "7", "10000000000", "x", [], {}, [10**9], {"a": 1}]),
    st.integers(-2, 200),
    st.floats(),
)


@given(name=st.sampled_from(sorted(TINY)), data=st.data())
@settings(deadline=None, max_examples=300)
def test_any_numbers_in_a_config_come_to_a_spec_or_a_short_error_in_no_time(name, data):
    config = whole(name)
    for _ in range(data.draw(st.integers(1, 3))):
        config = put(config, data.draw(st.sampled_from(leaves(config))), data.draw(NUMBERS))
    start = time.perf_counter()
    try:
        said = ""
        spec_of(config)
    except ModelOpenError as error:
        said = str(error)
    assert len(said) < 600
    assert time.perf_counter() - start < 1
