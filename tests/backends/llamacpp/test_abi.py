"""The layout of a library is verified before a model is opened: each field that is elsewhere is named. A library is altered here by
standing between it and who asks.
"""

from __future__ import annotations

import ctypes
import struct

import pytest

pytest.importorskip("xllamacpp", reason="brings the library")

from llmtrace_llamacpp.abi import AbiError, Blob, Tensor
from llmtrace_llamacpp.layout import GPU_LAYERS, patch, verify
from llmtrace_llamacpp.library import load

NAME = "/lib/libllama.so (b123)"


class Altered:
    """The loaded library, with some functions that answer otherwise."""

    def __init__(self, **functions):
        self.__dict__.update(functions)

    def __getattr__(self, name):
        return getattr(load().api, name)


def defaults(which, *changes):
    """The library's defaults, with bytes changed: (offset, form, value)."""
    blob = getattr(load().api, f"llama_{which}_default_params")()
    for offset, form, value in changes:
        struct.pack_into(form, blob.raw, offset, value)
    return Altered(**{f"llama_{which}_default_params": lambda: blob})


def test_the_library_that_is_loaded_is_laid_out_as_known():
    layout = verify(load().api, NAME)
    assert layout == load().layout
    offsets = sorted(place.offset for place in layout.values())
    assert len(set(offsets)) == len(layout) == 14


@pytest.mark.parametrize("field", ["n_ctx", "flash_attn", "n_threads", "cb_eval", "type_k", "swa_full"])
def test_a_field_of_the_context_that_is_elsewhere_is_named(field):
    place = load().layout[field]
    with pytest.raises(AbiError, match=rf"b123.*llama_context_params\.{field}") as caught:
        verify(defaults("context", (place.offset, "<B", 3)), NAME)
    assert "option library" in str(caught.value)


def test_a_second_match_is_no_match():
    flags = load().layout["swa_full"].offset - 4
    if load().layout["n_threads"].offset >= 24:  # older builds have no room for another
        with pytest.raises(AbiError, match="n_threads"):
            verify(defaults("context", (16, "<i", 4), (20, "<i", 4)), NAME)
    with pytest.raises(AbiError, match="swa_full"):
        verify(defaults("context", (flags + 8, "<Q", 0x0001010101_00)), NAME)


def test_rope_defaults_that_are_not_floats_are_named():
    with pytest.raises(AbiError, match="rope_freq_base"):
        verify(defaults("context", (load().layout["flash_attn"].offset + 4, "<f", 1.0)), NAME)


@pytest.mark.parametrize("change", [(0, "<Q", 8), (GPU_LAYERS, "<i", 12345), (GPU_LAYERS + 4, "<i", 7)])
def test_a_model_whose_parameters_begin_otherwise_is_named(change):
    with pytest.raises(AbiError, match="n_gpu_layers"):
        verify(defaults("model", change), NAME)


def test_a_tensor_of_another_size_is_named():
    with pytest.raises(AbiError, match=r"ggml_tensor .*344 bytes, not 336"):
        verify(Altered(ggml_tensor_overhead=lambda: 32 + 344), NAME)


@pytest.mark.parametrize(
    ("field", "function", "answer"),
    [
        ("the place of name", "ggml_get_name", lambda tensor: tensor + Tensor.name.offset + 8),
        ("data", "ggml_get_data", lambda tensor: 0x1234),
        ("op", "ggml_op_name", lambda op: b"ADD"),
        ("ggml_nbytes", "ggml_nbytes", lambda tensor: 4),
        ("name", "ggml_set_name", lambda tensor, name: None),
        ("flags", "ggml_set_input", lambda tensor: None),
        ("ne", "ggml_new_tensor_4d", lambda arena, kind, *ne: load().api.ggml_new_tensor_4d(arena, kind, *ne[::-1])),
        ("type", "ggml_new_tensor_4d", lambda arena, kind, *ne: load().api.ggml_new_tensor_4d(arena, 26, *ne)),
        ("ne of a permutation", "ggml_permute", lambda arena, t, *axes: load().api.ggml_permute(arena, t, 0, 1, 2, 3)),
        ("src", "ggml_mul_mat", lambda arena, a, b: load().api.ggml_permute(arena, a, 0, 2, 1, 3)),
    ],
)
def test_a_field_of_a_tensor_that_is_not_what_ggml_says_is_named(field, function, answer):
    with pytest.raises(AbiError, match=rf"ggml_tensor\.{field} "):
        verify(Altered(**{function: answer}), NAME)


@pytest.mark.parametrize(("field", "value"), [("n_tokens", 4), ("embd", 8), ("logits", None), ("pos", None)])
def test_a_batch_that_is_laid_out_otherwise_is_named(field, value):
    def init(*sizes):
        batch = load().api.llama_batch_init(*sizes)
        setattr(batch, field, value)
        return batch

    with pytest.raises(AbiError, match=rf"llama_batch\.{field}"):
        verify(Altered(llama_batch_init=init), NAME)


def test_patching_sets_one_field_and_no_other():
    blob, place = Blob(), load().layout["type_v"]
    patch(blob, place, 7)
    raw = bytes(blob.raw)
    assert struct.unpack_from("<i", raw, place.offset) == (7,)
    assert sum(raw) == 7 and ctypes.sizeof(blob) == 1024
