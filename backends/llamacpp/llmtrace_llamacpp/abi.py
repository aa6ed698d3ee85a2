"""How to call llama.cpp from Python: its structures and the signatures of its functions, in the C types of `ctypes`.

**Blob**: a structure of parameters whose layout changes from build to build, passed by value as more bytes than any build has; the
library touches its own only. **Tensor**: `ggml_tensor`, a node or leaf of the graph. `layout.py` holds all of it to the library that
was loaded before a model is opened.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterable, Mapping
from typing import Any

from llmtrace.errors import ModelOpenError

BLOB = 1024
"""Bytes of a blob; the largest structure of parameters seen has 168."""
MOST_DIMENSIONS = 4
MOST_SOURCES = 10
NAME = 64
"""Bytes of a tensor's name, with the zero at its end."""

INPUT = 1
"""The flag of a tensor that is filled anew for each run: tokens, positions, the attention mask."""


class AbiError(ModelOpenError):
    """The llama.cpp library that was found is laid out otherwise than this version knows: the message names library, build and field."""


class Blob(c.Structure):
    """`llama_model_params` or `llama_context_params`, opaque."""

    _fields_ = (("raw", c.c_ubyte * BLOB),)


class Tensor(c.Structure):
    """`ggml_tensor`: lengths `ne` and strides in bytes `nb`, fastest axis first."""

    _fields_ = (
        ("type", c.c_int32),
        ("buffer", c.c_void_p),
        ("ne", c.c_int64 * MOST_DIMENSIONS),
        ("nb", c.c_size_t * MOST_DIMENSIONS),
        ("op", c.c_int32),
        ("op_params", c.c_int32 * 16),
        ("flags", c.c_int32),
        ("src", c.c_void_p * MOST_SOURCES),
        ("view_src", c.c_void_p),
        ("view_offs", c.c_size_t),
        ("data", c.c_void_p),
        ("name", c.c_char * NAME),
        ("extra", c.c_void_p),
        ("padding", c.c_char * 8),
    )


class Batch(c.Structure):
    """`llama_batch`: tokens with their positions, sequences, and whether their logits are wanted."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


class InitParams(c.Structure):
    """`ggml_init_params`: an arena for tensors."""

    _fields_ = (("mem_size", c.c_size_t), ("mem_buffer", c.c_void_p), ("no_alloc", c.c_bool))


EVAL = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_bool, c.c_void_p)
"""`(tensor, ask, user data) -> bool`: called before a node is computed, and after it if the first answer was yes."""
LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
"""`(level, text, user data)`."""

_P, _I, _U, _S, _B, _T = c.c_void_p, c.c_int32, c.c_uint32, c.c_size_t, c.c_bool, c.c_char_p

SIGNATURES: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (LOG, _P)),
    "llama_model_default_params": (Blob, ()),
    "llama_model_load_from_file": (_P, (_T, Blob)),
    "llama_model_free": (None, (_P,)),
    "llama_model_get_vocab": (_P, (_P,)),
    "llama_model_n_ctx_train": (_I, (_P,)),
    "llama_model_n_layer": (_I, (_P,)),
    "llama_model_has_encoder": (_B, (_P,)),
    "llama_model_has_decoder": (_B, (_P,)),
    "llama_model_desc": (_I, (_P, _T, _S)),
    "llama_model_meta_val_str": (_I, (_P, _T, _T, _S)),
    "llama_vocab_type": (c.c_int, (_P,)),
    "llama_vocab_n_tokens": (_I, (_P,)),
    "llama_vocab_get_text": (_T, (_P, _I)),
    "llama_vocab_bos": (_I, (_P,)),
    "llama_vocab_eos": (_I, (_P,)),
    "llama_vocab_get_add_bos": (_B, (_P,)),
    "llama_vocab_get_add_eos": (_B, (_P,)),
    "llama_vocab_is_control": (_B, (_P, _I)),
    "llama_tokenize": (_I, (_P, _T, _I, c.POINTER(_I), _I, _B, _B)),
    "llama_token_to_piece": (_I, (_P, _I, _T, _I, _I, _B)),
    "llama_context_default_params": (Blob, ()),
    "llama_init_from_model": (_P, (_P, Blob)),
    "llama_free": (None, (_P,)),
    "llama_n_ctx": (_U, (_P,)),
    "llama_n_batch": (_U, (_P,)),
    "llama_n_ubatch": (_U, (_P,)),
    "llama_get_memory": (_P, (_P,)),
    "llama_memory_clear": (None, (_P, _B)),
    "llama_batch_init": (Batch, (_I, _I, _I)),
    "llama_batch_free": (None, (Batch,)),
    "llama_decode": (_I, (_P, Batch)),
    "llama_get_logits": (c.POINTER(c.c_float), (_P,)),
    "llama_print_system_info": (_T, ()),
    "ggml_backend_dev_count": (_S, ()),
    "ggml_backend_load_all_from_path": (None, (_T,)),
    "ggml_backend_buffer_is_host": (_B, (_P,)),
    "ggml_backend_tensor_get": (None, (_P, _P, _S, _S)),
    "ggml_backend_tensor_set": (None, (_P, _P, _S, _S)),
    "ggml_nbytes": (_S, (_P,)),
    "ggml_get_name": (_P, (_P,)),
    "ggml_get_data": (_P, (_P,)),
    "ggml_op_name": (_T, (_I,)),
    "ggml_type_name": (_T, (_I,)),
    "ggml_tensor_overhead": (_S, ()),
    "ggml_init": (_P, (InitParams,)),
    "ggml_free": (None, (_P,)),
    "ggml_new_tensor_4d": (_P, (_P, _I, c.c_int64, c.c_int64, c.c_int64, c.c_int64)),
    "ggml_permute": (_P, (_P, _P, c.c_int, c.c_int, c.c_int, c.c_int)),
    "ggml_mul_mat": (_P, (_P, _P, _P)),
    "ggml_set_name": (_P, (_P, _T)),
    "ggml_set_input": (None, (_P,)),
}
"""Function to its result and arguments; all are needed."""
OPTIONAL: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_commit": (_T, ()),
    "ggml_version": (_T, ()),
    "ggml_quantize_chunk": (_S, (_I, _P, _P, c.c_int64, c.c_int64, c.c_int64, _P)),
}
"""Functions that only some builds have: they say which build it is."""


class Api:
    """The functions of a loaded library, by name, with their signatures. One that the library has not is an `AttributeError`."""

    def __init__(self, handles: Iterable[c.CDLL], where: str) -> None:
        handles = tuple(handles)
        for name, (result, arguments) in {**SIGNATURES, **OPTIONAL}.items():
            found = next((function for handle in handles if (function := getattr(handle, name, None))), None)
            if found is None:
                if name in OPTIONAL:
                    continue
                raise AbiError(
                    f"{where} has no function {name}: it is no llama.cpp library, hides its functions, or is of a build that this "
                    "version does not know. Update it, or name another with the option library."
                )
            found.restype, found.argtypes = result, arguments
            setattr(self, name, found)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the loaded llama.cpp library has no {name}")
