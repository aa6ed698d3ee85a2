"""Whether a loaded library is laid out as `abi.py` says. **Fingerprint**: the defaults of the parameters, which are the same in every
layout seen, and so tell where each field is.

Nothing here needs a model: a library that does not pass is refused before one is opened, since a wrong offset would be a silent
wrong number or a crash.
"""

from __future__ import annotations

import ctypes as c
import struct
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from llmtrace_llamacpp.abi import INPUT, AbiError, Api, Blob, InitParams, Tensor

GPU_LAYERS = 16
"""Offset of `n_gpu_layers` in `llama_model_params`, in every layout seen."""
OVERHEAD = 32
"""Bytes of `ggml_object`, which `ggml_tensor_overhead` adds to a tensor's."""


@frozen
class Place:
    """Where a field of a blob is."""

    offset: int
    form: str
    """As `struct` has it."""


Layout = Mapping[str, Place]
"""The fields of `llama_context_params` that are set here."""


def patch(blob: Blob, place: Place, value: int) -> None:
    """Set one field."""
    struct.pack_into("<" + place.form, blob.raw, place.offset, value)


def verify(api: Api, library: str) -> Layout:
    """Hold the library to what is known of it. Raises `AbiError`, which names `library` (path and build) and the field."""
    _tensor(api, library)
    _batch(api, library)
    _model(api, library)
    return _context(api, library)


def _wrong(library: str, field: str, detail: str) -> AbiError:
    return AbiError(
        f"{library} has {field} laid out otherwise than this version of llmtrace-llamacpp knows ({detail}). Update "
        "llmtrace-llamacpp, or name a llama.cpp library of another build with the option library."
    )


def _tensor(api: Api, library: str) -> None:
    """What ggml's own accessors say of three tensors, against what our structure reads."""
    size = api.ggml_tensor_overhead() - OVERHEAD
    if size != c.sizeof(Tensor):
        raise _wrong(library, "ggml_tensor", f"{size} bytes, not {c.sizeof(Tensor)}")
    arena = api.ggml_init(InitParams(1 << 20, None, c.c_bool(False)))
    if not arena:
        raise _wrong(library, "ggml_init_params", "no arena of a megabyte")
    try:
        at = api.ggml_new_tensor_4d(arena, 0, 3, 5, 7, 11)
        permuted_at = api.ggml_permute(arena, at, 0, 2, 1, 3)
        product_at = api.ggml_mul_mat(arena, at, at)
        api.ggml_set_name(permuted_at, b"llmtrace-probe")
        given_at = api.ggml_new_tensor_4d(arena, 0, 1, 1, 1, 1)
        api.ggml_set_input(given_at)
        plain, permuted, product, given = (Tensor.from_address(a) for a in (at, permuted_at, product_at, given_at))
        facts: dict[str, tuple[Any, Any]] = {
            "type": (plain.type, 0),
            "ne": (list(plain.ne), [3, 5, 7, 11]),
            "nb": (list(plain.nb), [4, 12, 60, 420]),
            "ne of a permutation": (list(permuted.ne), [3, 7, 5, 11]),
            "nb of a permutation": (list(permuted.nb), [4, 60, 12, 420]),
            "view_src": (permuted.view_src, at),
            "name": (permuted.name, b"llmtrace-probe"),
            "the place of name": (api.ggml_get_name(permuted_at), permuted_at + Tensor.name.offset),
            "data": (plain.data, api.ggml_get_data(at)),
            "src": ([permuted.src[0], *product.src[:3]], [at, at, at, None]),
            "op": ([api.ggml_op_name(permuted.op), api.ggml_op_name(product.op)], [b"PERMUTE", b"MUL_MAT"]),
            "op_params": (list(permuted.op_params[:4]), [0, 2, 1, 3]),
            "flags": ([plain.flags, given.flags], [0, INPUT]),
            "ggml_nbytes": (api.ggml_nbytes(at), 4 * 3 * 5 * 7 * 11),
        }
    finally:
        api.ggml_free(arena)
    for field, (found, expected) in facts.items():
        if found != expected:
            raise _wrong(library, f"ggml_tensor.{field}", f"{found!r}, not {expected!r}")


def _batch(api: Api, library: str) -> None:
    batch = api.llama_batch_init(4, 0, 1)
    if batch.n_tokens != 0:
        raise _wrong(library, "llama_batch.n_tokens", f"{batch.n_tokens} in an empty batch")
    if batch.embd:
        raise _wrong(library, "llama_batch.embd", "set in a batch of tokens")
    for field in ("token", "pos", "n_seq_id", "seq_id", "logits"):
        if not getattr(batch, field):
            raise _wrong(library, f"llama_batch.{field}", "not set in a batch of tokens")
    api.llama_batch_free(batch)


def _model(api: Api, library: str) -> None:
    """Two null pointers, then layers on the GPU and `split_mode` (1: by layer); what follows differs from build to build."""
    raw = bytes(api.llama_model_default_params().raw)
    layers, split = struct.unpack_from("<ii", raw, GPU_LAYERS)
    if raw[:GPU_LAYERS] != bytes(GPU_LAYERS) or layers not in (-1, 0, 99, 999) or split != 1:
        raise _wrong(library, "llama_model_params.n_gpu_layers", f"defaults {layers}, {split} after {raw[:16].hex()}")


def _context(api: Api, library: str) -> Layout:
    """Each field by the defaults around it."""
    name = "llama_context_params"
    raw = bytes(api.llama_context_default_params().raw)

    def number(offset: int, form: str = "i") -> Any:
        return struct.unpack_from("<" + form, raw, offset)[0]

    sizes = [number(offset) for offset in (0, 4, 8, 12)]
    if sizes != [512, 2048, 512, 1]:
        raise _wrong(library, f"{name}.n_ctx", f"the defaults begin with {sizes}, not with 512, 2048, 512, 1")
    # rope_scaling_type, pooling_type, attention_type, flash_attn_type: four times "unspecified", which is -1
    enums = raw.find(b"\xff" * 16)
    if enums < 0 or enums % 4 or raw[enums + 16 : enums + 20] == b"\xff" * 4:
        raise _wrong(library, f"{name}.flash_attn_type", "no run of exactly four times -1")
    threads = [o for o in range(16, enums, 4) if number(o) == number(o + 4) == 4]
    if len(threads) != 1:
        raise _wrong(library, f"{name}.n_threads", f"{len(threads)} places hold 4 and 4")
    # rope base, scale, YaRN's ext, attn, beta fast, beta slow, original context, defrag threshold
    floats = [number(enums + 16 + 4 * i, "f") for i in range(8)]
    if floats[:3] != [0, 0, -1] or floats[6:] != [0, -1]:
        raise _wrong(library, f"{name}.rope_freq_base", f"the eight defaults from there are {floats}")
    callback = -(-(enums + 48) // 8) * 8
    if raw[callback : callback + 16] != bytes(16):
        raise _wrong(library, f"{name}.cb_eval", "not a null pointer by default")
    if [number(callback + 16), number(callback + 20)] != [1, 1]:
        raise _wrong(library, f"{name}.type_k", "keys and values are not kept as F16 by default")
    run = b"\x00\x01\x01\x01\x01\x00"  # embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified
    flags = raw.find(run, callback + 24, callback + 24 + 64)
    if flags < 0 or flags % 8 or raw.find(run, flags + 1, callback + 24 + 64) >= 0:
        raise _wrong(library, f"{name}.swa_full", "its flags are not where they are expected, or not only there")
    return {
        "n_ctx": Place(0, "I"),
        "n_batch": Place(4, "I"),
        "n_ubatch": Place(8, "I"),
        "n_seq_max": Place(12, "I"),
        "n_threads": Place(threads[0], "i"),
        "n_threads_batch": Place(threads[0] + 4, "i"),
        "flash_attn": Place(enums + 12, "i"),
        "cb_eval": Place(callback, "Q"),
        "cb_eval_user_data": Place(callback + 8, "Q"),
        "type_k": Place(callback + 16, "i"),
        "type_v": Place(callback + 20, "i"),
        "offload_kqv": Place(flags + 1, "B"),
        "op_offload": Place(flags + 3, "B"),
        "swa_full": Place(flags + 4, "B"),
    }
