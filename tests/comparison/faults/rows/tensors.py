"""Faults of tensors: what converters, merges and quantisers do to them. Block 1 of three, where a fault has one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.comparison.faults.fault import Fault, Tensors

LAYER = "model.layers.1"
GPT2 = "transformer.h.1"
MID = "blocks.1"


def change(name: str, by: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], None]:
    """Replace one tensor by what is made of it."""

    def act(tensors: Tensors) -> None:
        before = tensors[name]
        tensors[name] = by(before.copy()).astype(before.dtype)
        assert tensors[name].shape == before.shape
        assert not np.array_equal(tensors[name], before)

    return act


def every(end: str, by: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], None]:
    """The same to all tensors whose names end so."""

    def act(tensors: Tensors) -> None:
        names = [name for name in tensors if name.endswith(end)]
        assert names
        for name in names:
            tensors[name] = by(tensors[name].copy()).astype(tensors[name].dtype)

    return act


def exchange(one: str, other: str) -> Callable[[Tensors], None]:
    """Swap all tensors whose names hold one with those that hold the other."""

    def act(tensors: Tensors) -> None:
        pairs = [(name, name.replace(one, other)) for name in tensors if one in name]
        assert pairs
        for a, b in pairs:
            tensors[a], tensors[b] = tensors[b], tensors[a]

    return act


def copy(target: str, source: str) -> Callable[[Tensors], None]:
    """Put another tensor in its place."""

    def act(tensors: Tensors) -> None:
        tensors[target] = tensors[source].copy()

    return act


def paired(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of each head from halves to neighbours, as llama.cpp's converter permutes them."""
    return lambda w: w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def heads_swapped(heads: int, a: int, b: int) -> Callable[[np.ndarray], np.ndarray]:
    """Two heads' rows exchanged."""

    def act(w: np.ndarray) -> np.ndarray:
        split = w.reshape(heads, -1, *w.shape[1:])
        split[[a, b]] = split[[b, a]]
        return split.reshape(w.shape)

    return act


def rounded(bits: int, group: int = 32) -> Callable[[np.ndarray], np.ndarray]:
    """Quantised with too few bits."""

    def act(w: np.ndarray) -> np.ndarray:
        blocks = w.reshape(-1, group)
        step = np.abs(blocks).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        return (np.round(blocks / step) * step).reshape(w.shape)

    return act


def flipped(w: np.ndarray) -> np.ndarray:
    """The sign bit of the largest number."""
    at = np.unravel_index(np.abs(w).argmax(), w.shape)
    w[at] = -w[at]
    return w


def exponent(w: np.ndarray) -> np.ndarray:
    """A high bit of the exponent of one number."""
    w[7, 11] *= 64
    return w


def third(part: int, by: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """One of q, k and v in GPT-2's fused matrix or bias."""

    def act(w: np.ndarray) -> np.ndarray:
        size = w.shape[-1] // 3
        w[..., part * size : (part + 1) * size] = by(w[..., part * size : (part + 1) * size].copy())
        return w

    return act


def k_before_q(w: np.ndarray) -> np.ndarray:
    """GPT-2's fused matrix in the order k, q, v."""
    q, k, v = np.split(w, 3, -1)
    return np.concatenate([k, q, v], -1)


def chain(*changes: Callable[[Tensors], None]) -> Callable[[Tensors], None]:
    """Several, as one mistake makes them."""

    def act(tensors: Tensors) -> None:
        for each in changes:
            each(tensors)

    return act


def experts_swapped(tensors: Tensors) -> None:
    """Two experts of a block exchanged, their router's rows left."""
    names = [name for name in tensors if name.startswith(f"{LAYER}.") and ".experts.1." in name]
    assert names, [name for name in tensors if "expert" in name]
    for name in names:
        other = name.replace(".experts.1.", ".experts.3.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def router(tensors: Tensors) -> None:
    """Rows of a router in another order."""
    name = next(name for name in tensors if name.startswith(f"{LAYER}.") and name.endswith(".gate.weight"))
    tensors[name] = tensors[name][[1, 0, 2, 3]]


def roll(by: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows shifted."""
    return lambda w: np.roll(w, by, 0)


def times(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """All numbers of a tensor, by a factor."""
    return lambda w: w * factor


def zero(w: np.ndarray) -> np.ndarray:
    """Never written."""
    return np.zeros_like(w)


def turned(w: np.ndarray) -> np.ndarray:
    """A square matrix the wrong way round."""
    return w.T.copy()


def column_heads(heads: int, a: int, b: int) -> Callable[[np.ndarray], np.ndarray]:
    """Two heads' columns of an output matrix exchanged."""
    return lambda w: heads_swapped(heads, a, b)(w.T.copy()).T


ROWS = (
    Fault("vocabulary of the embedding shifted by one", "llama", ("embed",), ("rows of vocab shifted",), tensors=change("model.embed_tokens.weight", roll(1))),
    Fault("vocabulary of the head shifted by one", "llama", ("logits",), ("vocab shifted",), tensors=change("lm_head.weight", roll(-1))),
    Fault("two tokens exchanged in the embedding", "qwen3", ("embed",), ("vocab 17 and 41 swapped",),
          tensors=change("model.embed_tokens.weight", lambda w: w[np.r_[:17, 41, 18:41, 17, 42:97]])),
    Fault("rows of q paired as neighbours", "llama", (f"{MID}.attn.q",), ("w_q", "permuted", "neighbours"), tensors=change(f"{LAYER}.self_attn.q_proj.weight", paired(4))),
    Fault("rows of k paired as neighbours, all blocks", "qwen3", ("blocks.0.attn.k",), ("w_k", "permuted", "neighbours"), tensors=every("k_proj.weight", paired(2))),
    Fault("two heads of q exchanged", "llama", (f"{MID}.attn.q",), ("w_q", "head 1 and 2 swapped"), tensors=change(f"{LAYER}.self_attn.q_proj.weight", heads_swapped(4, 1, 2))),
    Fault("two heads of v exchanged", "mixtral", (f"{MID}.attn.v",), ("w_v", "head 0 and 1 swapped"), tensors=change(f"{LAYER}.self_attn.v_proj.weight", heads_swapped(2, 0, 1))),
    Fault("two heads exchanged in the output matrix", "gemma2", (f"{MID}.attn.out",), ("w_o", "head 0 and 3 swapped"), tensors=change(f"{LAYER}.self_attn.o_proj.weight", column_heads(4, 0, 3))),
    Fault("two blocks exchanged", "llama", (f"{MID}.ln1.out",), ("holds blocks.2.ln1.w",), tensors=exchange(".layers.1.", ".layers.2.")),
    Fault("gate and up exchanged", "llama", (f"{MID}.mlp.pre",), ("holds blocks.1.mlp.w_in",), tensors=exchange(f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj")),
    Fault("one tensor of three bits", "llama", (f"{MID}.attn.out",), ("w_o", "rounded, as 3 bits"), tensors=change(f"{LAYER}.self_attn.o_proj.weight", rounded(3))),
    Fault("one tensor of eight bits", "qwen2", (f"{MID}.mlp.out",), ("w_out", "rounded, as 8 bits"), tensors=change(f"{LAYER}.mlp.down_proj.weight", rounded(8))),
    Fault("one sign flipped", "llama", (f"{MID}.mlp.out",), ("w_out", "one number differs"), tensors=change(f"{LAYER}.mlp.down_proj.weight", flipped)),
    Fault("a bit of one exponent flipped", "gemma2", (f"{MID}.mlp.pre",), ("one number differs",), tensors=change(f"{LAYER}.mlp.gate_proj.weight", exponent)),
    Fault("one tensor larger by 1 %", "llama", (f"{MID}.attn.v",), ("w_v", "multiplied by 1.01"), tensors=change(f"{LAYER}.self_attn.v_proj.weight", times(1.01))),
    Fault("a tensor twice as large", "granite", (f"{MID}.mlp.out",), ("w_out", "multiplied by"), tensors=change(f"{LAYER}.mlp.down_proj.weight", times(2))),
    Fault("a square matrix transposed", "qwen2", (f"{MID}.attn.q",), ("w_q", "transposed"), tensors=change(f"{LAYER}.self_attn.q_proj.weight", turned)),
    Fault("a square matrix transposed in GPT-2", "gpt2", (f"{MID}.attn.out",), ("w_o", "transposed"), tensors=change(f"{GPT2}.attn.c_proj.weight", turned)),
    Fault("another block's tensor", "qwen3", (f"{MID}.mlp.out",), ("holds blocks.0.mlp.w_out",), tensors=copy(f"{LAYER}.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight")),
    Fault("a tensor never written", "mixtral", (f"{MID}.attn.q",), ("w_q", "all zero"), tensors=change(f"{LAYER}.self_attn.q_proj.weight", zero)),
    Fault("bias of q dropped", "qwen2", ("blocks.0.attn.q",), ("b_q", "all zero"), tensors=every("q_proj.bias", zero)),
    Fault("bias of k dropped in one block", "qwen2", (f"{MID}.attn.k",), ("b_k", "all zero"), tensors=change(f"{LAYER}.self_attn.k_proj.bias", zero)),
    Fault("bias of v of another block", "gpt2", (f"{MID}.attn.v",), ("b_v",),
          tensors=lambda t: t.update({f"{GPT2}.attn.c_attn.bias": np.r_[t[f"{GPT2}.attn.c_attn.bias"][:128], t["transformer.h.0.attn.c_attn.bias"][128:]]})),
    Fault("bias of a layer norm dropped", "gpt2", (f"{MID}.ln1.out",), ("ln1.b", "all zero"), tensors=change(f"{GPT2}.ln_1.bias", zero)),
    Fault("bias of the MLP dropped", "gpt2", (f"{MID}.mlp.out",), ("b_out", "all zero"), tensors=change(f"{GPT2}.mlp.c_proj.bias", zero)),
    Fault("q and k exchanged in the fused matrix", "gpt2", ("blocks.0.attn.q",), ("w_q", "holds blocks.0.attn.w_k"),
          tensors=chain(*(change(f"transformer.h.{n}.attn.c_attn.{end}", k_before_q) for n in range(3) for end in ("weight", "bias")))),
    Fault("heads of k rotated by one in GPT-2", "gpt2", (f"{MID}.attn.k",), ("w_k", "permuted"),
          tensors=change(f"{GPT2}.attn.c_attn.weight", third(1, lambda w: np.roll(w, 16, -1)))),
    Fault("learned positions shifted by two", "gpt2", ("pos_embed",), ("position shifted",), tensors=change("transformer.wpe.weight", roll(-2))),
    Fault("weights of norms less by one", "gemma2", ("blocks.0.ln1.out",), ("less by 1",), tensors=every("layernorm.weight", lambda w: w - 1)),
    Fault("weights of norms more by one", "gemma2", ("blocks.0.ln1.out",), ("more by 1",), tensors=every("layernorm.weight", lambda w: w + 1)),
    Fault("weight of one norm left at one", "llama", (f"{MID}.ln2.out",), ("ln2.w", "all 1"), tensors=change(f"{LAYER}.post_attention_layernorm.weight", np.ones_like)),
    Fault("weight of the last norm of another", "qwen3", ("ln_final.out", "logits"), ("ln_final.w", "holds blocks.2.ln1.w"), tensors=copy("model.norm.weight", "model.layers.2.input_layernorm.weight")),
    Fault("norms of q and k exchanged", "qwen3", (f"{MID}.attn.q_norm.out",), ("q_norm.w", "holds"), tensors=exchange(f"{LAYER}.self_attn.q_norm", f"{LAYER}.self_attn.k_norm")),
    Fault("two experts exchanged", "mixtral", (f"{MID}.mlp.pre", f"{MID}.mlp.out"), ("expert 1 and 3 swapped",), tensors=experts_swapped),
    Fault("rows of the router exchanged", "mixtral", (f"{MID}.mlp.router",), ("expert 0 and 1 swapped",), tensors=router),
    Fault("post-norms exchanged", "gemma2", (f"{MID}.attn_post.out",), ("attn_post.w", "holds"),
          tensors=exchange(f"{LAYER}.post_attention_layernorm", f"{LAYER}.post_feedforward_layernorm")),
)  # fmt: skip
