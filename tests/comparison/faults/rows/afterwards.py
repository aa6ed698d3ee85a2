"""Faults that were written after the last rule was: of other families, and of other kinds. Their words were settled before they were run."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from attrs import evolve
from torch.utils._python_dispatch import _disable_current_modes

from llmtrace.spec import ModelSpec
from tests.comparison.faults.fault import Fault, Tensors
from tests.comparison.faults.patching import attentions, blocks, during, instead
from tests.comparison.faults.rows.config import SCORED, TURNED, put, rope
from tests.comparison.faults.rows.converters import attention
from tests.comparison.faults.rows.tensors import GPT2, LAYER, MID, change, copy, every, exchange, zero

RANDOM = np.random.default_rng(5)


def _local_base(config: dict[str, Any]) -> None:
    config["rope_parameters"]["sliding_attention"]["rope_theta"] = 1000000.0


def _parts_of_qkv(w: np.ndarray) -> np.ndarray:
    """q, k, v of Phi-3's fused matrix in the order q, v, k."""
    return np.concatenate([w[:64], w[96:], w[64:96]])


def _halves(w: np.ndarray) -> np.ndarray:
    return np.concatenate(np.split(w, 2)[::-1])


def _stacked(w: np.ndarray) -> np.ndarray:
    """BLOOM's q, k and v, which lie head by head, as if they lay one after another."""
    return w.reshape(4, 3, 16, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)


def _neuron(w: np.ndarray) -> np.ndarray:
    w[:, 7] = 0
    return w


def _adapter(w: np.ndarray) -> np.ndarray:
    """A low rank added, as by merging what should not have been."""
    return w + 0.05 * RANDOM.normal(size=(w.shape[0], 2)) @ RANDOM.normal(size=(2, w.shape[1]))


def _cast(w: np.ndarray) -> np.ndarray:
    return w.astype(ml_dtypes.bfloat16).astype(np.float32)


def _without_shared(original: Any, x: torch.Tensor) -> torch.Tensor:
    return 0 * original(x)


def _shared_missing(model: Any) -> None:
    for block in blocks(model):
        instead(block.mlp.shared_expert, _without_shared)


def _shared_ungated(model: Any) -> None:
    for block in blocks(model):
        instead(block.mlp.shared_expert_gate, lambda run, x: torch.full_like(run(x), 100.0))


def _no_sinks(model: Any) -> None:
    for each in attentions(model):
        each.sinks.fill_(-1e4)


def _softmax_in_half(model: Any) -> None:
    def half(original: Any, module: Any, q: Any, k: Any, v: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        with _disable_current_modes():  # no operator more than when the model was opened
            q, k = q.half().to(q.dtype), k.half().to(k.dtype)
        return original(module, q, k, v, mask, *rest, **named)

    for each in attentions(model):
        during(each, "eager_attention_forward", half)


def _head_lost(model: Any) -> None:
    def lost(original: Any, *args: Any, **named: Any) -> Any:
        output, weights = original(*args, **named)
        output = output.clone()
        output[:, :, 3] = 0
        return output, weights

    for each in attentions(model):
        during(each, "eager_attention_forward", lost)


def _added_twice(model: Any) -> None:
    block = blocks(model)[1]
    instead(block, lambda run, x, **named: run(x, **named) + block.mlp.kept)
    instead(block.mlp, lambda run, x: _keep(block.mlp, run(x)))


def _keep(module: Any, value: torch.Tensor) -> torch.Tensor:
    module.kept = value
    return value


def _clipped(model: Any) -> None:
    """Where a runtime keeps the stream from overflowing."""
    instead(blocks(model)[1].mlp, lambda run, x: run(x).clamp(-0.5, 0.5))


def _sigmoid(model: Any) -> None:
    for block in blocks(model):
        block.mlp.act_fn = torch.nn.Sigmoid()


def _softcap_first(model: Any) -> None:
    """The cap on products that are not scaled yet."""

    def capped(original: Any, module: Any, q: Any, k: Any, v: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        cap, scaling = named.pop("softcap"), named["scaling"]
        return original(module, q, k, v, mask, *rest, **named | {"softcap": cap * scaling})

    for each in attentions(model):
        during(each, "eager_attention_forward", capped)


def _kv_reversed(model: Any) -> None:
    for each in attentions(model):
        during(each, "repeat_kv", lambda original, x, times: original(x.flip(1), times))


def _cos_in_bf16(model: Any) -> None:
    def rounded(run: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return tuple(each.bfloat16().to(each.dtype) for each in run(x, position_ids))

    instead(model.base_model.rotary_emb, rounded)


def _positions(model: Any) -> None:
    instead(model.base_model.rotary_emb, lambda run, x, position_ids: run(x, position_ids - 2))


def _norm_in_half(model: Any) -> None:
    for block in blocks(model):
        instead(block.input_layernorm, lambda run, x: run(x).half().to(x.dtype))


def _no_posts(spec: ModelSpec) -> ModelSpec:
    changed = [evolve(b, branches=(b.branches[0], evolve(b.branches[1], post=None))) for b in spec.blocks]
    return evolve(spec, blocks=tuple(changed))


def _pad_row(tensors: Tensors) -> None:
    tensors["model.decoder.embed_tokens.weight"][41] = 0


ROWS = (
    Fault("base of the local rotary", "gemma3_text", TURNED, ("theta 1,000,000", "10,000"), config=_local_base),
    Fault("YaRN added", "olmo2", TURNED, ("scaling",), config=put(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16})),
    Fault("factor of logits", "cohere", ("logits",), ("scale 1 instead of 0.3",), config=put(logit_scale=1.0)),
    Fault("limit of the experts' clamp", "gpt_oss", ("blocks.0.mlp.post", "blocks.0.mlp.out"), ("limit",), config=put(swiglu_limit=7.0)),
    Fault("another window", "gpt_oss", SCORED, ("window 9 instead of 5",), config=put(sliding_window=9)),
    Fault("experts' weights divided by their sum", "qwen2_moe", ("blocks.0.mlp.router_weights", "blocks.0.mlp.out"), ("renormalise yes",), config=put(norm_topk_prob=True)),
    Fault("GELU instead of ReLU", "opt", ("blocks.0.mlp.post",), ("act gelu", "relu"), config=put(activation_function="gelu")),
    Fault("epsilon of post-norms", "olmo2", ("blocks.0.attn.q_norm.out",), ("eps 1e-06",), config=put(rms_norm_eps=1e-6)),
    Fault("rotary base of a longer context", "cohere", TURNED, ("theta 8,000,000",), config=rope(rope_theta=8000000.0)),
    Fault("k and v exchanged in a fused matrix", "phi3", (f"{MID}.attn.k",), ("w_k", "w_v"), tensors=change(f"{LAYER}.self_attn.qkv_proj.weight", _parts_of_qkv)),
    Fault("halves of a fused matrix exchanged", "phi3", (f"{MID}.mlp.pre",), ("holds blocks.1.mlp.w_in",), tensors=change(f"{LAYER}.mlp.gate_up_proj.weight", _halves)),
    Fault("q, k and v taken one after another", "bloom", (f"{MID}.attn.q",), ("w_q",), tensors=change(f"{GPT2}.self_attention.query_key_value.weight", _stacked)),
    Fault("sinks of another block", "gpt_oss", (f"{MID}.attn.pattern", f"{MID}.attn.z"), ("sinks", "holds blocks.0.attn.sinks"), tensors=copy(f"{LAYER}.self_attn.sinks", "model.layers.0.self_attn.sinks")),
    Fault("biases of experts dropped", "gpt_oss", (f"{MID}.mlp.out",), ("b_out", "all zero"), tensors=change(f"{LAYER}.mlp.experts.down_proj_bias", zero)),
    Fault("shared expert never written", "qwen2_moe", (f"{MID}.mlp.shared_out", f"{MID}.mlp.out"), ("shared", "all zero"), tensors=change(f"{LAYER}.mlp.shared_expert.down_proj.weight", zero)),
    Fault("norm of q of another block", "olmo2", (f"{MID}.attn.q_norm.out",), ("holds blocks.2.attn.q_norm.w",), tensors=copy(f"{LAYER}.self_attn.q_norm.weight", "model.layers.2.self_attn.q_norm.weight")),
    Fault("bias of the output dropped", "starcoder2", ("blocks.0.attn.out",), ("b_o", "all zero"), tensors=every("o_proj.bias", zero)),
    Fault("norm of k less by one", "gemma3_text", (f"{MID}.attn.k_norm.out",), ("less by 1",), tensors=change(f"{LAYER}.self_attn.k_norm.weight", lambda w: w - 1)),
    Fault("one neuron lost", "starcoder2", (f"{MID}.mlp.out",), ("w_out", "only d_mlp 7"), tensors=change(f"{LAYER}.mlp.c_proj.weight", _neuron)),
    Fault("neurons in another order", "cohere", (f"{MID}.mlp.out",), ("w_out", "permuted"), tensors=change(f"{LAYER}.mlp.down_proj.weight", lambda w: w[:, ::-1])),
    Fault("a merged adapter", "phi3", (f"{MID}.attn.out",), ("w_o",), tensors=change(f"{LAYER}.self_attn.o_proj.weight", _adapter)),
    Fault("one tensor in bfloat16", "olmo2", (f"{MID}.mlp.pre",), ("bfloat16",), tensors=change(f"{LAYER}.mlp.gate_proj.weight", _cast)),
    Fault("the other sign", "starcoder2", (f"{MID}.attn.k",), ("w_k", "multiplied by -1"), tensors=change(f"{LAYER}.self_attn.k_proj.weight", lambda w: -w)),
    Fault("a row of the embedding lost", "opt", ("embed",), ("only vocab 41 differs",), tensors=_pad_row),
    Fault("positions one row away", "opt", ("pos_embed",), ("position shifted",), tensors=change("model.decoder.embed_positions.weight", lambda w: np.roll(w, -1, 0))),
    Fault("norms of attention and MLP exchanged", "bloom", (f"{MID}.ln1.out",), ("ln1.w: holds blocks.1.ln2.w",), tensors=exchange(f"{GPT2}.input_layernorm", f"{GPT2}.post_attention_layernorm")),
    Fault("sinks take no part", "gpt_oss", ("blocks.0.attn.pattern", "blocks.0.attn.z"), ("sinks",), code=_no_sinks),
    Fault("shared expert missing", "qwen2_moe", ("blocks.0.mlp.shared_out", "blocks.0.mlp.out"), ("shared expert is missing",), code=_shared_missing),
    Fault("gate of the shared expert missing", "qwen2_moe", ("blocks.0.mlp.shared_out", "blocks.0.mlp.out"), ("shared expert's gate is missing",), code=_shared_ungated),
    Fault("queries and keys in half precision", "phi3", SCORED, ("float16",), code=_softmax_in_half),
    Fault("a head is lost", "olmo2", ("blocks.0.attn.z",), ("head 3",), code=_head_lost),
    Fault("the MLP added twice", "phi3", (f"{MID}.resid_post",), ("mlp_out is added twice",), code=_added_twice),
    Fault("the MLP's output clipped", "phi3", (f"{MID}.resid_post",), ("clip",), code=_clipped),
    Fault("sigmoid instead of SiLU", "cohere", ("blocks.0.mlp.post",), ("activation sigmoid",), code=_sigmoid),
    Fault("softcap before the scale", "gemma2", SCORED, ("softcap",), code=_softcap_first),
    Fault("key heads in reverse order", "gemma3_text", SCORED, ("key head",), code=_kv_reversed),
    Fault("sines in bfloat16", "olmo2", TURNED, ("bfloat16",), code=_cos_in_bf16),
    Fault("positions two before", "phi3", TURNED, ("positions counted from -2",), code=_positions, harmless=True),
    Fault("a norm in half precision", "phi3", ("blocks.0.ln1.out",), ("float16",), code=_norm_in_half),
    Fault("ALiBi missing", "bloom", SCORED, ("slopes",), spec=attention(slopes=())),
    Fault("post-norm of the MLP missing, as converted", "olmo2", ("blocks.0.mlp_post.out", "blocks.0.mlp_out"), ("post",), spec=_no_posts),
    Fault("norm of q missing, as converted", "gemma3_text", TURNED, ("norm",), spec=attention(q_norm=None)),
)  # fmt: skip
