"""Weights of a GGUF file: those that were written, to the bit, and none before they are asked for."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.fingerprint import fingerprint
from llmtrace_llamacpp.weights import as_halves, as_pairs, open_gguf
from llmtrace_llamacpp.writing import ARCHITECTURE_OF
from tests.backends.llamacpp.tiny import changed, write_gguf


@pytest.mark.parametrize("family", [family for family in ARCHITECTURE_OF if family != "phi"])
def test_every_weight_is_the_models_to_the_bit(family, tiny):
    model, path = tiny(family)
    found = open_gguf(path)
    assert set(found.weights) == set(model.weights) == set(found.stored)
    for name, array in model.weights.items():
        own = found.weights[name]
        assert own.dtype == np.float32 and not own.flags.writeable, name
        assert np.array_equal(own, array), name
    assert found.fingerprint == fingerprint([path])


@pytest.mark.parametrize("family", ["llama", "mistral", "granite"])
def test_rows_of_q_and_k_stand_in_pairs_in_the_file_and_in_halves_here(family, tiny):
    """The converter's own words: `w.reshape(heads, 2, half, …).swapaxes(1, 2)`."""
    model, path = tiny(family)
    raw = {one.name: one.data.reshape([int(n) for n in one.shape][::-1]) for one in gguf.GGUFReader(path).tensors}
    for letter, name in (("Q", "attn_q"), ("K", "attn_k")):
        plain = model.weights[f"blocks.1.attn.W_{letter}"]
        heads, d_model, d_head = plain.shape
        rows = plain.transpose(0, 2, 1)
        moved = rows.reshape(heads, 2, d_head // 2, d_model).swapaxes(1, 2).reshape(heads * d_head, d_model)
        assert np.array_equal(raw[f"blk.1.{name}.weight"], moved)
        assert not np.array_equal(raw[f"blk.1.{name}.weight"], rows.reshape(moved.shape))
    assert np.array_equal(
        raw["blk.1.attn_v.weight"], model.weights["blocks.1.attn.W_V"].transpose(0, 2, 1).reshape(-1, d_model)
    )


def test_moving_rows_and_moving_them_back_is_nothing():
    rows = np.arange(3 * 8 * 5).reshape(24, 5)
    assert np.array_equal(as_halves(as_pairs(rows, 3), 3), rows) and as_halves(rows, 0) is rows
    assert as_pairs(np.arange(8), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_a_quantised_tensor_is_dequantised_as_the_package_gguf_does(kind, tiny):
    model, path = tiny("gpt2", kind)
    found, one = open_gguf(path), gguf.GGMLQuantizationType[kind]
    up = model.weights["blocks.2.mlp.W_in"]
    assert np.array_equal(
        found.weights["blocks.2.mlp.W_in"], gguf.dequantize(gguf.quantize(np.ascontiguousarray(up.T), one), one).T
    )
    assert not np.array_equal(found.weights["blocks.2.mlp.W_in"], up)
    assert (
        found.stored["blocks.2.mlp.W_in"] == found.stored["blocks.2.attn.W_K"] == kind
        and found.stored["blocks.2.ln1.w"] == "F32"
    )
    assert found.stored["unembed.W_U"] == kind, "tied"


def test_nothing_is_read_before_it_is_asked_for_and_then_only_that(tiny, monkeypatch):
    read, dequantize = [], gguf.dequantize
    monkeypatch.setattr(gguf, "dequantize", lambda raw, kind: read.append(raw.size) or dequantize(raw, kind))
    found = open_gguf(tiny("mixtral")[1])
    assert "blocks.1.attn.W_V" in found.weights and found.stored["blocks.1.attn.W_V"] == "F32" and read == []
    assert found.weights["blocks.1.attn.W_V"].shape == (2, 64, 16)
    assert read == [32 * 256]


def spoilt(source, target, old: bytes, new: bytes):
    assert source.read_bytes().count(old) == 1
    target.write_bytes(source.read_bytes().replace(old, new))
    return target


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            b"blk.1.ffn_up.weight",
            b"blk.1.ffn_ab.weight",
            "lacks blk.1.ffn_up.weight, which blocks.1.mlp.W_in of this llama model",
        ),
        (b"output_norm.weight", b"output_abcd.weight", "lacks output_norm.weight"),
        (b"token_embd.weight", b"token_abcd.weight", "lacks the tensor token_embd.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(old, new, message, tiny, tmp_path):
    with pytest.raises(ModelOpenError, match=message):
        open_gguf(spoilt(tiny("llama")[1], tmp_path / "spoilt.gguf", old, new))


def test_a_tensor_that_no_equation_reads_is_named(tmp_path):
    model = changed("phi", qk_layernorm=True)
    with pytest.raises(ModelOpenError, match=r"attn_q_norm.weight is in .*, and no equation of a phi model reads it"):
        open_gguf(write_gguf(model, tmp_path / "tiny.gguf"))


def test_a_storage_type_that_the_package_cannot_undo_is_named(tiny, tmp_path):
    """Integers, say: four bytes each, as the floats that they stand in for."""
    name, target = b"blk.2.ffn_down.weight", tmp_path / "spoilt.gguf"
    data = bytearray(tiny("gpt2")[1].read_bytes())
    place = data.index(name) + len(name) + 4 + 2 * 8
    assert data[place : place + 4] == bytes(4)
    data[place] = 26
    target.write_bytes(data)
    found = open_gguf(target)
    with pytest.raises(
        ModelOpenError, match=r"ffn_down.weight .* stored as I32, which the package gguf does not dequantise"
    ):
        found.weights["blocks.2.mlp.W_out"]


def test_a_model_that_llama_cpp_has_no_architecture_for_is_not_written(tmp_path):
    with pytest.raises(UnsupportedModelError, match="no architecture in the table for codegen models"):
        write_gguf(changed("codegen"), tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_rows_that_are_no_whole_blocks_are_not_written(kind, tmp_path):
    with pytest.raises(UnsupportedModelError, match=f"are no whole blocks of .*, as {kind} has them"):
        write_gguf(changed("llama", hidden_size=72, intermediate_size=72), tmp_path / "model.gguf", kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_weights_of_smollm2_are_those_that_transformers_reads(smollm2):
    pytest.importorskip("llmtrace_torch")
    import llmtrace

    found = open_gguf(smollm2)
    with llmtrace.open(smollm2, backend="torch") as model:
        assert set(model.weights) == set(found.weights) and dict(model.session.stored) == dict(found.stored)
        assert {"Q4_1", "F32"} <= set(found.stored.values())
        for name in list(found.weights)[::5]:  # each kind's turn comes
            assert np.array_equal(model.weights[name], found.weights[name]), name
