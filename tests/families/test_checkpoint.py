"""Checkpoint directories: what is read from one, and the one-line error for everything that can be wrong with it."""

from __future__ import annotations

import json
import struct
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.families import FAMILIES
from llmtrace.families.checkpoint import first_non_finite, open_checkpoint, weights_from
from llmtrace.testing.tiny import write_tiny

FILE = "model.safetensors"


@pytest.fixture
def written(tmp_path):
    """A function that writes a tiny checkpoint, with its tensors and config changed, and returns its directory."""

    def write(family="llama", change=lambda tensors: tensors, config=(), **overrides):
        write_tiny(family, tmp_path, **overrides)
        save_file(change(load_file(tmp_path / FILE)), tmp_path / FILE)
        said = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(said | dict(config)))
        return tmp_path

    return write


def without(*ends):
    """Tensors but those whose name ends so."""
    return lambda tensors: {name: array for name, array in tensors.items() if not name.endswith(ends)}


def adding(**arrays):
    """Tensors and others, `__` standing for a dot."""
    return lambda tensors: tensors | {name.replace("__", "."): array for name, array in arrays.items()}


def same(a, b):
    """Whether two checkpoints hold the same weights."""
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_weights_have_the_schemas_names_and_shapes(written):
    checkpoint = open_checkpoint(written())
    q = checkpoint.weights["blocks.1.attn.W_Q"]
    assert q.shape == (4, 64, 24)
    stored = checkpoint.tensors["model.layers.1.self_attn.q_proj.weight"]
    assert np.array_equal(q, stored.reshape(4, 24, 64).transpose(0, 2, 1))
    assert checkpoint.stored["blocks.1.attn.W_Q"] == "float32"
    assert checkpoint.config["model_type"] == "llama"


def test_weights_are_read_only_and_kept_nowhere(written):
    checkpoint = open_checkpoint(written("mixtral"))
    for name in ("blocks.0.attn.W_Q", "blocks.0.mlp.W_in", "embed.W_E"):
        with pytest.raises(ValueError, match="read-only"):
            checkpoint.weights[name][...] = 0
        assert checkpoint.weights[name] is not checkpoint.weights[name]


def test_a_norm_weight_stored_less_one_comes_as_multiplied(written):
    checkpoint = open_checkpoint(written("gemma"))
    assert np.allclose(checkpoint.weights["ln_final.w"], checkpoint.tensors["model.norm.weight"] + 1)


def test_sixteen_bits_come_as_stored(tmp_path):
    import torch

    model = write_tiny("gemma", tmp_path)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.weights["blocks.0.attn.W_Q"].dtype.name == "bfloat16"
    assert checkpoint.stored["ln_final.w"] == "bfloat16"
    expected = model.model.norm.weight.detach().float().numpy() + 1
    assert np.array_equal(checkpoint.weights["ln_final.w"], expected)  # the sum is not rounded to 16 bits


def test_shards_open_as_one(tmp_path):
    model = write_tiny("llama", tmp_path)
    whole = open_checkpoint(tmp_path)
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert same(whole.weights, open_checkpoint(tmp_path / "shards").weights)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "falcon", "opt", "bloom"])
def test_a_checkpoint_of_the_base_model_opens_too(family, written):
    prefix = FAMILIES[family].prefix
    full = {name: array.copy() for name, array in open_checkpoint(written(family)).weights.items()}
    bare = written(family, lambda tensors: {name.removeprefix(prefix): array for name, array in tensors.items()})
    assert same(full, open_checkpoint(bare).weights)


def test_masks_and_tables_of_old_checkpoints_are_passed_over(written):
    masks = adding(
        transformer__h__0__attn__bias=np.ones((1, 1, 4, 4), bool),
        transformer__h__0__attn__masked_bias=np.array([-1e4], np.float32),
    )
    open_checkpoint(written("gpt2", masks))
    table = adding(model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(8, np.float32))
    open_checkpoint(written("llama", table))


def test_a_tied_head_may_be_stored_or_not(written):
    def stored(tensors):
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}

    checkpoint = open_checkpoint(written("llama", stored, tie_word_embeddings=True))
    assert checkpoint.spec.unembed.tied
    assert np.array_equal(checkpoint.weights["unembed.W_U"], checkpoint.weights["embed.W_E"].T)


def test_a_head_that_differs_from_the_embedding_is_used_as_transformers_does(written):
    import torch
    import transformers

    def stored(tensors):
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"][::-1].copy()}

    directory = written("llama", stored, tie_word_embeddings=True)
    checkpoint = open_checkpoint(directory)
    assert not checkpoint.spec.unembed.tied
    loaded = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    assert np.array_equal(checkpoint.weights["unembed.W_U"].T, loaded.lm_head.weight.detach().numpy())


def test_gemma3_with_pictures_opens_as_its_text_model(written):
    text = {name: array.copy() for name, array in open_checkpoint(written("gemma3_text")).weights.items()}

    def renamed(tensors):
        return {f"language_model.{name}": array for name, array in tensors.items()} | {
            "vision_tower.x": np.ones(3, np.float32)
        }

    directory = written("gemma3_text", renamed)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    assert same(text, open_checkpoint(directory).weights)


def test_the_fingerprint_knows_weights_and_config(written):
    first = open_checkpoint(written()).fingerprint
    assert first == open_checkpoint(written()).fingerprint
    assert len(first) == 64
    assert first != open_checkpoint(written(config={"rms_norm_eps": 1e-3})).fingerprint
    assert (
        first != open_checkpoint(written(change=lambda tensors: {n: a * 1.001 for n, a in tensors.items()})).fingerprint
    )


def test_the_fingerprint_does_not_know_what_files_are_called(sharded):
    first = open_checkpoint(sharded).fingerprint
    index = sharded / "model.safetensors.index.json"
    text = index.read_text()
    for place, shard in enumerate(sorted(sharded.glob("model-*.safetensors"), reverse=True)):
        text = text.replace(shard.name, f"part{place}.safetensors")
        shard.rename(sharded / f"part{place}.safetensors")
    index.write_text(text)
    assert open_checkpoint(sharded).fingerprint == first


def test_tensors_in_memory_become_weights_too(written):
    checkpoint = open_checkpoint(written())
    tensors = load_file(checkpoint.directory / FILE)
    assert same(checkpoint.weights, weights_from(checkpoint.spec, checkpoint.family, tensors))


def test_a_weight_that_is_not_finite_is_named(written):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
        return tensors

    assert first_non_finite(open_checkpoint(written()).weights) is None
    assert first_non_finite(open_checkpoint(written(change=spoil)).weights) == "blocks.1.mlp.W_in"


LOST = {
    "llama": "layers.1.self_attn.q_proj.bias",
    "qwen2": "layers.2.self_attn.v_proj.bias",
    "gpt2": "h.0.mlp.c_proj.bias",
    "gpt_oss": "layers.1.self_attn.sinks",
    "phi": "lm_head.bias",
    "qwen3": "layers.0.self_attn.k_norm.weight",
    "gpt_neox": "layers.0.attention.dense.bias",
    "mixtral": "experts.2.w1.weight",
    "bloom": "word_embeddings_layernorm.bias",
}


@pytest.mark.parametrize("family", LOST)
def test_a_lost_tensor_is_named(family, written):
    with pytest.raises(
        ModelOpenError, match=rf"{FILE} lacks \S*{LOST[family]}, which \S+ of this {family} model is read from"
    ):
        open_checkpoint(written(family, without(LOST[family])))


def test_a_tensor_beyond_the_last_block_tells_how_many_the_config_says_there_are(written):
    def further(tensors):
        named = next(name for name in tensors if ".layers.1." in name)
        return tensors | {named.replace(".layers.1.", ".layers.7."): tensors[named]}

    with pytest.raises(
        ModelOpenError, match=r"It is of block 7, and config\.json says that there are \d \(from 0 to \d\)"
    ):
        open_checkpoint(written(change=further))


HOSTILE = "x\x1b[2J\n\u202e" + "y" * 3000


def test_a_hostile_name_of_a_tensor_is_escaped_and_cut(written):
    with pytest.raises(ModelOpenError, match="no equation of a llama model reads it") as caught:
        open_checkpoint(written(change=lambda tensors: tensors | {HOSTILE: np.zeros(3, np.float32)}))
    assert harmless(caught.value)


def test_a_hostile_name_in_an_index_is_escaped_and_cut(sharded):
    index = sharded / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    for file, words in ((next(iter(places.values())), "lacks 'x"), ("z.safetensors", "which holds 'x")):
        index.write_text(json.dumps({"weight_map": places | {HOSTILE: file}}))
        with pytest.raises(ModelOpenError, match=words) as caught:
            open_checkpoint(sharded)
        assert harmless(caught.value)
    index.write_text(json.dumps({"weight_map": places | {"a": HOSTILE[:200] + ".safetensors"}}))
    with pytest.raises(ModelOpenError, match="lacks the shard 'x") as caught:
        open_checkpoint(sharded)
    assert harmless(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", HOSTILE),
        ("hidden_act", HOSTILE),
        ("rope_scaling", {"rope_type": HOSTILE, "factor": 2.0}),
        ("layer_types", [HOSTILE] * 3),
        ("quantization_config", {"quant_method": HOSTILE}),
        ("quantization_config", HOSTILE),
        ("hidden_size", HOSTILE),
        ("hidden_size", -1e300),
        ("num_hidden_layers", HOSTILE),
    ],
)
def test_a_hostile_value_in_a_config_is_escaped_and_cut(key, value, written):
    with pytest.raises(ModelOpenError) as caught:
        open_checkpoint(written("qwen3", config={key: value}))
    assert harmless(caught.value)


def harmless(error):
    """Whether a message is one short line that a terminal only shows (the path of the test's own directory apart)."""
    return str(error).isprintable() and len(str(error)) < 700


def test_a_lost_head_is_named(written):
    with pytest.raises(ModelOpenError, match=r"lacks lm_head\.weight, which unembed\.W_U"):
        open_checkpoint(written("llama", without("lm_head.weight")))


def test_a_bias_that_the_config_denies_is_named(written):
    extra = adding(model__layers__0__self_attn__q_proj__bias=np.zeros(64, np.float32))
    with pytest.raises(
        ModelOpenError,
        match=r"model\.layers\.0\.self_attn\.q_proj\.bias is in .*no equation of a mistral model reads it",
    ):
        open_checkpoint(written("mistral", extra))


def test_a_tensor_of_another_shape_is_named(written):
    with pytest.raises(
        ModelOpenError, match=r"gate_proj\.weight in .* has shape \[96, 64\], not \[80, 64\] as config\.json says"
    ):
        open_checkpoint(written(config={"intermediate_size": 80}))


def test_a_transposed_tensor_is_an_error(written):
    def turn(tensors):
        return {name: array.T.copy() if "down_proj.weight" in name else array for name, array in tensors.items()}

    with pytest.raises(ModelOpenError, match="has shape"):
        open_checkpoint(written(change=turn))


def test_integers_for_weights_are_refused(written):
    def round_off(tensors):
        return {name: array.astype(np.int8) if "up_proj.weight" in name else array for name, array in tensors.items()}

    with pytest.raises(ModelOpenError, match="stored as int8"):
        open_checkpoint(written(change=round_off))


def test_eight_bit_floats_are_refused_by_name(written):
    directory = written()

    def eight(header):
        norm = header["model.norm.weight"]
        return {
            **header,
            "model.norm.weight": {
                **norm,
                "dtype": "F8_E4M3",
                "shape": [norm["data_offsets"][1] - norm["data_offsets"][0]],
            },
        }

    rewrite(directory / FILE, eight)
    with pytest.raises(ModelOpenError, match=r"model\.norm\.weight in model\.safetensors is stored as .F8_E4M3."):
        open_checkpoint(directory)


def rewrite(path, change):
    """Another header over the same data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_said_to_be(kept, written):
    directory = written()
    data = (directory / FILE).read_bytes()
    (directory / FILE).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(
        ModelOpenError, match=f"{FILE} cannot be opened: it (is|should).* (empty|truncated).* Fetch it again"
    ):
        open_checkpoint(directory)


def holding(*rows, bytes_=8):
    """A file whose header has these rows."""
    header = ("{" + ",".join(rows) + "}").encode()
    return struct.pack("<Q", len(header)) + header + bytes(bytes_)


def row(name="a", dtype='"F32"', shape="[2]", offsets="[0, 8]"):
    return f'"{name}": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}'


DAMAGE = {
    "no JSON": (struct.pack("<Q", 4) + b"nope", "it is not a safetensors file"),
    "half of a JSON": (struct.pack("<Q", 4) + b'{"a"', "the header is not JSON"),
    "a list": (struct.pack("<Q", 2) + b"[]", "it is not a safetensors file"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "is truncated or not a safetensors file"),
    "a bad row": (holding('"a": {}', bytes_=0), "describes 'a' badly"),
    "a number for a row": (holding('"a": 3', bytes_=0), "describes 'a' badly"),
    "a size that is not the shape's": (holding(row(shape="[3]")), "'a' has 8 bytes for F32"),
    "an infinite length": (holding(row(shape="[1e999]")), "badly"),
    "a fraction of a length": (holding(row(shape="[2.5]")), "badly"),
    "a negative length": (holding(row(shape="[-2, -1]")), "badly"),
    "truth for a length": (holding(row(shape="[2, true]")), "badly"),
    "places that are no numbers": (holding(row(offsets='["0", 8]')), "badly"),
    "a type that is no text": (holding(row(dtype="4")), "badly"),
    "a tensor twice": (holding(row(), row()), "'a' twice"),
    "nesting without end": (holding('"a":' + "[" * 200_000), "nested deeper than"),
    "two tensors in one place": (holding(row(), row("b")), "'b' overlaps what stands before it"),
    "a hole": (holding(row(), row("b", offsets="[12, 20]"), bytes_=20), "'b' leaves a gap before it"),
    "something behind": (holding(row(), bytes_=9), "followed by something"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_safetensors_file_is_an_error(damage, written):
    content, message = DAMAGE[damage]
    directory = written()
    (directory / FILE).write_bytes(content)
    with pytest.raises(ModelOpenError, match=message):
        open_checkpoint(directory)


def test_no_directory_is_an_error(tmp_path):
    with pytest.raises(ModelOpenError, match="nowhere is not a directory"):
        open_checkpoint(tmp_path / "nowhere")


def test_no_config_is_an_error(written):
    directory = written()
    (directory / "config.json").unlink()
    with pytest.raises(ModelOpenError, match=r"is no checkpoint: it lacks config\.json\."):
        open_checkpoint(directory)
    (directory / FILE).unlink()
    with pytest.raises(ModelOpenError, match=r"is no checkpoint: it lacks config\.json and \*\.safetensors\."):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"a":' * 100_000, "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ("\xff", "is not valid JSON"),
    ],
)
def test_a_config_that_is_no_json_is_an_error(text, message, written):
    directory = written()
    (directory / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelOpenError, match=message):
        open_checkpoint(directory)


def test_a_pickle_is_refused(written):
    directory = written()
    (directory / FILE).rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelOpenError, match=r"pytorch_model\.bin .* pickles can run code.* save_pretrained"):
        open_checkpoint(directory)


def test_no_tensors_at_all_is_an_error(written):
    directory = written()
    (directory / FILE).unlink()
    with pytest.raises(ModelOpenError, match=r"has a config\.json and no weights: it lacks model\.safetensors, or"):
        open_checkpoint(directory)


@pytest.fixture
def sharded(tmp_path):
    """A checkpoint in shards."""
    write_tiny("llama", tmp_path / "whole").save_pretrained(tmp_path, max_shard_size="100KB")
    return tmp_path


def test_a_missing_shard_is_named(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelOpenError, match=rf"lacks the shard {shard.name}, which holds \S+: fetch it"):
        open_checkpoint(sharded)


def test_a_shard_without_its_tensor_is_named(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    tensors = load_file(shard)
    lost = sorted(tensors)[0]
    save_file({name: array for name, array in tensors.items() if name != lost}, shard)
    with pytest.raises(ModelOpenError, match=f"{shard.name} lacks {lost}"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {"a": "../../etc/passwd"}}, {"weight_map": {"a": 3}}]
)
def test_an_index_that_points_elsewhere_is_refused(index, sharded):
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelOpenError, match="has no weight_map from tensors to files beside it"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "mxfp4"])
def test_a_quantised_checkpoint_is_refused_by_name(method, written):
    with pytest.raises(UnsupportedModelError, match=rf"is quantised \({method}\)"):
        open_checkpoint(written(config={"quantization_config": {"quant_method": method}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 2000),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 1e9),
        ("num_attention_heads", 10**9),
        ("vocab_size", 10**12),
        ("hidden_size", 10**12),
        ("intermediate_size", 10**12),
        ("num_key_value_heads", 10**12),
        ("head_dim", 10**12),
        ("max_position_embeddings", 10**12),
    ],
)
def test_an_enormous_number_ends_quickly_whatever_it_counts(key, value, written):
    directory = written(config={key: value})
    start = time.perf_counter()
    if key == "max_position_embeddings":  # sizes nothing in a rotary model
        assert open_checkpoint(directory).spec.context == value
    else:
        with pytest.raises(ModelOpenError, match=r"config\.json"):
            open_checkpoint(directory)
    assert time.perf_counter() - start < 1


def test_more_layers_than_there_are_tensors_are_an_error_before_anything_is_made_for_each(written):
    with pytest.raises(ModelOpenError, match=r"announces 2,000 layers, and .*model\.safetensors holds \d+ tensors"):
        open_checkpoint(written(config={"num_hidden_layers": 2000}))
