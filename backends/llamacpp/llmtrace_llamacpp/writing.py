"""A model as a GGUF file that llama.cpp opens: the table of names and the metadata the other way round. For tests, a user's too.

Its **vocabulary** is one of single bytes, as many tokens as the model has: enough to open the file; prompts are token ids. Or it is one
of given **letters**, for a model that knows no other text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np

from llmtrace.errors import OptionError, UnsupportedModelError
from llmtrace.families.native import Family, arrange, native_of, stored_shape
from llmtrace.families.weights import stored_as
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import Attention, Linear, Llama3, LongRope, Mixer, ModelSpec, Moe, Rotary, Yarn
from llmtrace_llamacpp.alphabet import SHOWN, spelled
from llmtrace_llamacpp.architectures import ARCHITECTURES
from llmtrace_llamacpp.library import load
from llmtrace_llamacpp.names import table
from llmtrace_llamacpp.rope import LONG, ONE, SHORT
from llmtrace_llamacpp.weights import TURNED, as_pairs, heads_of, turned

ARCHITECTURE_OF: Mapping[str, str] = {
    "mistral": "llama",
    **{
        family: name
        for name, each in reversed(list(ARCHITECTURES.items()))
        for family in (each.windowed, each.mixture, each.shared, each.family)
        if family
    },
}
"""Family to the architecture that a converter makes of it: the first of those that compute the same."""
FUSED_QKV = ("gpt2", "gptneox", "bloom", "falcon", "phi3", "mpt", "starcoder", "chatglm")
"""Architectures whose converted files have q, k and v in one tensor."""
SECOND_AFTER = ("gpt-oss", "seed_oss", "glm4moe")
"""Architectures whose second norm is called after what stands before it."""
IN_SECTIONS = ("qwen2vl", "qwen3vl", "qwen3vlmoe")
"""Architectures that turn by several positions a token, of which a text has one."""
PLAIN = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "attn_sinks.weight")
"""Tensors of several axes that a quantised file keeps in float32."""
NOT_KNOWN = 1024
"""A context for a model that sets no limit: a file must say one."""


class Model(Protocol):
    """What is written: a `llmtrace.testing.TinyModel` is one."""

    @property
    def spec(self) -> ModelSpec:
        """What it is."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """By schema name."""


def write_gguf(
    model: Model, path: str | Path, kind: str = "F32", letters: Sequence[str] = (), architecture: str = ""
) -> Path:
    """Write a model as a GGUF file, its matrices of the storage type `kind`; returns the path. What the package gguf cannot pack (K-quants,
    imatrix types), ggml does. `letters` are the texts of its tokens, where they are single characters, after the mark that begins a text.
    `architecture` is one of several that compute the family; empty: the commonest.

    Raises `UnsupportedModelError` for a model that llama.cpp has no architecture for, or whose rows are no whole blocks of the type, and
    `OptionError` for letters that are no such vocabulary.
    """
    spec, path = model.spec, Path(path)
    if spec.family not in ARCHITECTURE_OF:
        raise UnsupportedModelError(
            f"llama.cpp has no architecture in the table for {spec.family} models: known are {', '.join(ARCHITECTURE_OF)}."
        )
    name = architecture or ARCHITECTURE_OF[spec.family]
    half = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(half, name)
    try:
        writer.add_name("tiny")  # a neutral one: by some names llama.cpp asks for tokens of that family
        for key, value in _metadata(spec, name).items():
            _add(writer, f"{name}.{key}", value)
        if letters:
            _letters(writer, letters, spec.vocab)
        else:
            _vocabulary(writer, spec.vocab)
        for tensor, array in _tensors(model, name):
            one = gguf.GGMLQuantizationType[kind if array.ndim > 1 and not tensor.endswith(PLAIN) else "F32"]
            writer.add_tensor(tensor, _quantised(array, one), raw_dtype=one)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(half, path)  # noqa: PTH105  # replaces what is there, on every system
    finally:
        half.unlink(missing_ok=True)
    return path


def _quantised(array: Array, kind: Any) -> Array:
    """The blocks of a tensor [… bytes]."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    width = array.shape[-1]
    if width % block:
        raise UnsupportedModelError(f"Rows of {width} numbers are no whole blocks of {block}, as {kind.name} has them.")
    try:
        found: Array = gguf.quantize(array, kind)
        return found
    except NotImplementedError:
        pass
    rows = np.ascontiguousarray(array.reshape(-1, width), np.float32)
    packed = np.zeros((len(rows), width // block * size), np.uint8)
    weights = np.ones(width, np.float32)  # an importance matrix, which some types need: all channels alike
    load().api.ggml_quantize_chunk(
        int(kind), rows.ctypes.data, packed.ctypes.data, 0, len(rows), width, weights.ctypes.data
    )
    return packed.reshape(*array.shape[:-1], -1)


def _add(writer: Any, key: str, value: Any) -> None:
    add = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array,
    }[type(value)]  # fmt: skip
    add(key, value)


def _metadata(spec: ModelSpec, name: str) -> dict[str, Any]:
    """What the spec says, by the file's keys."""
    block = spec.blocks[0]
    a, mlp = _attention(spec), block.branches[-1].module
    routed = [branch.module for block in spec.blocks for branch in block.branches if isinstance(branch.module, Moe)]
    eps = "layer_norm_epsilon" if spec.ln_final.centred else "layer_norm_rms_epsilon"
    found: dict[str, Any] = {
        "context_length": spec.context or (spec.positions.length if spec.positions else NOT_KNOWN),
        "embedding_length": spec.d_model,
        "block_count": len(spec.blocks),
        "vocab_size": spec.vocab,
        "attention.head_count": a.heads,
        "attention.head_count_kv": a.kv_heads,
        "attention.key_length": a.d_head,
        "attention.value_length": a.d_value,
        f"attention.{eps}": spec.ln_final.eps,
        "attn_logit_softcapping": a.softcap,
        "final_logit_softcapping": spec.unembed.softcap,
        "attention.clamp_kqv": a.clip,
    }
    if isinstance(mlp, Moe):
        found["feed_forward_length"] = mlp.expert.d_mlp
    elif not isinstance(mlp, Attention | Mixer):
        found["feed_forward_length"] = mlp.d_mlp
    if routed:
        found |= _experts(spec, routed[0])
    if a.slopes and name == "mpt":
        found["attention.max_alibi_bias"] = 8.0
    if ARCHITECTURES[name].period:
        found["attention.sliding_window"] = next((one.window for one in _attentions(spec) if one.window), 0)
    if name == "gptneox":
        found["use_parallel_residual"] = all(norm.reads == "resid_pre" for norm in block.norms)
    if name in ("granite", "granitemoe", "minicpm"):
        found |= {"embedding_scale": spec.embed.scale, "residual_scale": block.branches[0].multiplier}
        found |= {"attention.scale": a.scale, "logit_scale": 1 / spec.unembed.scale}
    if name in IN_SECTIONS and a.rotary:
        third = a.rotary.width // 6
        found["rope.dimension_sections"] = [a.rotary.width // 2 - 2 * third, third, third, 0]
    if name in ("command-r", "cohere2"):
        found["logit_scale"] = spec.unembed.scale
    return {key: value for key, value in (found | _rotary(spec)).items() if value is not None}


def _experts(spec: ModelSpec, moe: Moe) -> dict[str, Any]:
    """Of a mixture, whose first blocks may have a plain MLP."""
    found: dict[str, Any] = {
        "expert_count": moe.experts,
        "expert_used_count": moe.choices,
        "expert_feed_forward_length": moe.expert.d_mlp,
        "expert_shared_feed_forward_length": moe.shared.expert.d_mlp if moe.shared else None,
    }
    if moe.correction:
        dense = [not isinstance(block.branches[-1].module, Moe) for block in spec.blocks]
        found |= {"leading_dense_block_count": sum(dense), "expert_gating_func": 2 if moe.scoring == "sigmoid" else 1}
        found |= {"expert_weights_scale": moe.scale, "expert_weights_norm": moe.renormalise}
        found |= {"expert_shared_count": moe.shared.expert.d_mlp // moe.expert.d_mlp if moe.shared else 0}
    return found


def _rotary(spec: ModelSpec) -> dict[str, Any]:
    """The rotary embedding of the layers without a window, and the base of the others."""
    turned = [(one.window or 0, one.rotary) for one in _attentions(spec) if one.rotary]
    if not turned:
        return {}
    whole = min(turned, key=lambda pair: pair[0])[1]
    found: dict[str, Any] = {"rope.freq_base": whole.theta, "rope.dimension_count": whole.width}
    match whole.scaling:
        case None:
            pass
        case Linear(factor):
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case Yarn(factor=factor, context=context, gain=None):
            found |= {"rope.scaling.type": "yarn", "rope.scaling.factor": factor}
            found |= {"rope.scaling.original_context_length": context}
        case Llama3():
            pass  # the table says it all
        case LongRope(context=context, gain=gain):
            found |= {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": gain}
            found |= {"rope.scaling.original_context_length": context}
        case other:
            raise UnsupportedModelError(f"A rotary embedding stretched by {type(other).__name__} is not written.")
    return found


def _attentions(spec: ModelSpec) -> list[Attention]:
    return [block.attention for block in spec.blocks if block.attention]


def _attention(spec: ModelSpec) -> Attention:
    found = _attentions(spec)
    if not found:
        raise UnsupportedModelError(f"A {spec.family} model without attention is not written.")
    return found[0]


def _tensors(model: Model, name: str) -> Iterator[tuple[str, Array]]:
    """Every tensor of the file, float32: weights put where a reader takes them from."""
    spec = model.spec
    family = Family(lambda _: spec, table(spec, _chosen(spec, name)))
    made: dict[str, Array] = {}
    for weight, sizes in needed(spec):
        if stored_as(spec, weight.name) != weight.name:
            continue  # tied: it stands there already
        native, (tensor,) = native_of(family, weight.name)
        buffer = made.setdefault(tensor, np.zeros(stored_shape(native.axes, sizes), np.float32))
        place = arrange(buffer, native.axes, weight.axes, sizes, native.piece)
        place[...] = model.weights[weight.name]
    moved = ARCHITECTURES[name].permuted
    for tensor, array in made.items():
        yield tensor, turned(array, heads_of(spec, tensor), as_pairs) if moved and tensor.endswith(TURNED) else array
    for one in _attentions(spec)[:1]:
        yield from _divisors(one.rotary)


def _divisors(rotary: Rotary | None) -> Iterator[tuple[str, Array]]:
    """Tables of divisors of the frequencies, where the file says the stretch by one."""
    scaling = rotary and rotary.scaling
    if isinstance(scaling, LongRope):
        yield SHORT, np.array(scaling.short, np.float32)
        yield LONG, np.array(scaling.long, np.float32)
    if rotary and isinstance(scaling, Llama3):
        turns = scaling.context / (2 * np.pi * rotary.theta ** (np.arange(0, rotary.width, 2) / rotary.width))
        smooth = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
        yield ONE, (1 / ((1 - smooth) / scaling.factor + smooth)).astype(np.float32)


def _chosen(spec: ModelSpec, name: str) -> set[str]:
    """Of the tensors that a file may or may not have, those that a converter writes: `names.table` asks for them."""
    fused = {"blk.0.attn_qkv.weight"} if name in FUSED_QKV else set()
    if name in ("phi3", "glm4", "chatglm"):
        return fused | {"blk.0.ffn_up.weight"}  # and no gate: both halves are in it
    if name in SECOND_AFTER:
        return fused | {"blk.0.post_attention_norm.weight"}
    two = name == "falcon" and len(spec.blocks[0].norms) > 1
    return fused | {"blk.0.ffn_norm.weight"} | ({"blk.0.attn_norm_2.weight"} if two else set())


def _vocabulary(writer: Any, count: int) -> None:
    """A byte-level vocabulary of `count` tokens: space, newline and printable bytes first, then the other bytes, then unused ones.

    The last but one is the only merge, without which llama.cpp opens no file; the last the control token that begins and ends a text.
    """
    printable = [ord(" "), ord("\n"), *range(33, 127)]
    order = [*printable, *(byte for byte in range(256) if byte not in printable)]
    tokens = [spelled(byte) for byte in order[: count - 2]]
    tokens += [f"<unused{index}>" for index in range(len(tokens), count - 2)]
    unused = [gguf.TokenType.UNUSED if token.startswith("<unused") else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, "ab", "<|endoftext|>"])
    writer.add_token_types([*unused, gguf.TokenType.NORMAL, gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(count - 1)
    writer.add_eos_token_id(count - 1)
    writer.add_add_bos_token(False)


def _letters(writer: Any, texts: Sequence[str], count: int) -> None:
    """A byte-level vocabulary of a mark, which begins every text, and single letters. It has no blank, so llama.cpp passes over blanks.

    There must be a merge: that of two blanks, which makes no token.
    """
    mark, *letters = texts
    wrong = [text for text in letters if len(text) != 1 or ord(text) not in SHOWN]
    if wrong or len(set(texts)) != count or len(texts) != count:
        raise OptionError(
            f"{len(texts)} texts are no vocabulary of {count} tokens: after the mark, each is one letter of its own"
            + (f", and {wrong[0]!r} is none." if wrong else ".")
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([mark, *letters])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * len(letters)])
    writer.add_token_merges([f"{spelled(ord(' '))} {spelled(ord(' '))}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)  # there is none, and llama.cpp would take token 11 for it
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
