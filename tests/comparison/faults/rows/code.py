"""Faults of code: right files, and a runtime that computes something else. Where a converter makes the same mistake, it stands beside."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tests.comparison.faults.fault import Fault
from tests.comparison.faults.patching import attentions, blocks, during, identity, instead

SCORED = ("blocks.0.attn.scores", "blocks.0.attn.pattern", "blocks.0.attn.z")
TURNED = ("blocks.0.attn.rot_q",)


def _frequencies(factor: Any) -> Any:
    def act(model: Any) -> None:
        rotary = model.base_model.rotary_emb
        rotary.inv_freq.copy_(factor(rotary.inv_freq))

    return act


def _interleaved(original: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


def _apply_interleaved(original: Any, q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
    half = cos.shape[-1] // 2
    cos, sin = (x[..., :half].repeat_interleave(2, -1).unsqueeze(1) for x in (cos, sin))
    return q * cos + _interleaved(None, q) * sin, k * cos + _interleaved(None, k) * sin


def _apply_half(original: Any, q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
    """Turn half of the channels alone, as partial rotary of the same frequencies' first half would by mistake."""
    width = cos.shape[-1] // 2
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    angles = torch.arange(q.shape[2], dtype=torch.float64)[:, None] * 10000.0**-exponents
    c, s = (torch.cat([f(angles)] * 2, -1).to(q.dtype)[None] for f in (torch.cos, torch.sin))
    turned = original(q[..., :width], k[..., :width], c, s)
    return tuple(torch.cat([t, x[..., width:]], -1) for t, x in zip(turned, (q, k), strict=True))


def _apply_not(original: Any, q: Any, k: Any, *rest: Any, **named: Any) -> Any:
    return q, k


def _apply_back(original: Any, q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
    return original(q, k, cos, -sin, *rest, **named)


def _apply_k_only(original: Any, q: Any, k: Any, *rest: Any, **named: Any) -> Any:
    return q, original(q, k, *rest, **named)[1]


def _rotary(other: Any) -> Any:
    def act(model: Any) -> None:
        for attention in attentions(model):
            during(attention, "apply_rotary_pos_emb", other)

    return act


def _positions(by: int) -> Any:
    def act(model: Any) -> None:
        instead(model.base_model.rotary_emb, lambda run, x, position_ids: run(x, position_ids + by))

    return act


def _tiled(original: Any, x: torch.Tensor, times: int) -> torch.Tensor:
    return x.repeat(1, times, 1, 1)


def _tile(model: Any) -> None:
    for attention in attentions(model):
        during(attention, "repeat_kv", _tiled)


def _mask(change: Any) -> Any:
    """Another mask for the kernel."""

    def other(original: Any, module: Any, query: Any, key: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        length = query.shape[2]
        with _disable_current_modes():  # as if it had been made before
            places = torch.arange(length)
            seen = change(places[:, None], places[None, :])
            closed = torch.zeros(length, length, dtype=query.dtype).masked_fill(~seen, -math.inf)[None, None]
        return original(module, query, key, value, closed, *rest, **named)

    def act(model: Any) -> None:
        for attention in attentions(model):
            during(attention, "eager_attention_forward", other)

    return act


def _scaling(factor: Any) -> Any:
    def act(model: Any) -> None:
        for attention in attentions(model):
            attention.scaling *= factor(attention)

    return act


def _norms(model: Any, *ends: str) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(ends)]


def _norm_missing(*ends: str) -> Any:
    def act(model: Any) -> None:
        found = _norms(model, *ends)
        assert found
        for module in found:
            instead(module, identity)

    return act


def _eps(end: str, eps: float) -> Any:
    def act(model: Any) -> None:
        found = _norms(model, end)
        assert found
        for module in found:
            name = next(name for name in ("variance_epsilon", "eps") if hasattr(module, name))
            setattr(module, name, eps)

    return act


def _not_centred(original: Any, x: torch.Tensor) -> torch.Tensor:
    module = original.__self__
    scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + module.eps)
    return x * scale * module.weight + module.bias


def _uncentred(model: Any) -> None:
    for module in _norms(model, "ln_1", "ln_2", "ln_f"):
        instead(module, _not_centred)


def _centred(model: Any) -> None:
    for module in _norms(model, "input_layernorm"):
        instead(module, lambda run, x: run(x - x.mean(-1, keepdim=True)))


def _unweighted(model: Any) -> None:
    for module in _norms(model, "post_attention_layernorm"):
        instead(module, lambda run, x: x * torch.rsqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-6).to(x.dtype))


def _plus_one(model: Any) -> None:
    """A Llama's norm weights multiplied as Gemma's are."""
    for module in _norms(model, "input_layernorm"):
        module.weight.add_(1)


def _act(other: Any) -> Any:
    def act(model: Any) -> None:
        for block in blocks(model):
            block.mlp.act_fn = other

    return act


def _linear_half(original: Any, x: torch.Tensor) -> torch.Tensor:
    mlp = original.__self__
    return mlp.down_proj(mlp.gate_proj(x) * mlp.act_fn(mlp.up_proj(x)))


def _halves(model: Any) -> None:
    for block in blocks(model):
        instead(block.mlp, _linear_half)


def _no_residual(model: Any) -> None:
    """What is added to the attention's output is nothing: the norm in front is given the stream, and the sum is not."""
    block = blocks(model)[1]

    def forward(original: Any, hidden_states: torch.Tensor, **named: Any) -> Any:
        after = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **named)[0]
        return after + block.mlp(block.post_attention_layernorm(after))

    instead(block, forward)


def _parallel(model: Any) -> None:
    """The second norm of a block reads what the first reads."""
    block = blocks(model)[1]
    seen: list[torch.Tensor] = []

    def first(run: Any, x: torch.Tensor) -> torch.Tensor:
        seen[:] = [x]
        return run(x)

    instead(block.input_layernorm, first)
    instead(block.post_attention_layernorm, lambda run, x: run(seen[0]))


def _router(other: Any) -> Any:
    def act(model: Any) -> None:
        for block in blocks(model):
            instead(block.mlp.gate, other)

    return act


def _whole(original: Any, x: torch.Tensor) -> Any:
    logits, _, chosen = original(x)
    return logits, torch.softmax(logits.float(), -1).gather(-1, chosen), chosen


def _sigmoid(original: Any, x: torch.Tensor) -> Any:
    logits, _, chosen = original(x)
    picked = torch.sigmoid(logits.float()).gather(-1, chosen)
    return logits, picked / picked.sum(-1, keepdim=True), chosen


def _least(original: Any, x: torch.Tensor) -> Any:
    logits, _, _ = original(x)
    values, chosen = torch.softmax(logits.float(), -1).topk(2, largest=False)
    return logits, values / values.sum(-1, keepdim=True), chosen


def _after(original: Any, x: torch.Tensor) -> Any:
    logits, _, _ = original(x)
    values, chosen = (each[:, 1:] for each in torch.softmax(logits.float(), -1).topk(3))
    return logits, values / values.sum(-1, keepdim=True), chosen


def _unscaled(model: Any) -> None:
    model.base_model.embed_tokens.embed_scale.fill_(1.0)


def _bf16_frequencies(model: Any) -> None:
    rotary = model.base_model.rotary_emb
    rotary.inv_freq.copy_(rotary.inv_freq.bfloat16().float())


def _lm_head_reads(model: Any) -> None:
    instead(model.base_model.norm, identity)


def _bias_not_added(model: Any) -> None:
    for attention in attentions(model):
        attention.k_proj.bias = None


def _positions_read(by: int) -> Any:
    def act(model: Any) -> None:
        instead(model.base_model.wpe, lambda run, ids: run(ids + by))

    return act


ROWS = (
    Fault("rotary base in code", "llama", TURNED, ("rotary base 500,000",), code=_frequencies(lambda f: (500_000 / 10_000) ** (-torch.arange(len(f)) / len(f)) * f)),
    Fault("rotary base in code, of no published model", "qwen2", TURNED, ("rotary base", "fitted"), code=_frequencies(lambda f: 3.21 ** (-torch.arange(len(f)) / len(f)) * f)),
    Fault("rotary positions divided by two", "granite", TURNED, ("positions divided by 2",), code=_frequencies(lambda f: f / 2)),
    Fault("rotary frequencies in bfloat16", "llama", TURNED, ("bfloat16",), code=_bf16_frequencies),
    Fault("rotary layout", "llama", TURNED, ("pairs interleaved",), code=_rotary(_apply_interleaved)),
    Fault("rotary of half the channels", "llama", TURNED, ("width 12 instead of 24",), code=_rotary(_apply_half), early=True),
    Fault("rotary missing", "mixtral", TURNED, ("rotary none instead of",), code=_rotary(_apply_not), early=True),
    Fault("rotary turned back", "qwen3", TURNED, ("turns the other way",), code=_rotary(_apply_back)),
    Fault("rotary of k alone", "gemma2", TURNED, ("rotary is not applied",), code=_rotary(_apply_k_only), early=True),
    Fault("positions from one", "llama", TURNED, ("positions counted from 1",), code=_positions(1), harmless=True),
    Fault("key heads tiled", "llama", SCORED, ("h mod kv_heads",), code=_tile),
    Fault("a mask that shows the next token", "llama", SCORED, ("mask", "one token too far"), code=_mask(lambda q, k: k <= q + 1)),
    Fault("a mask that hides the token itself", "qwen2", SCORED, ("mask", "do not see themselves"), code=_mask(lambda q, k: (k < q) | ((k == 0) & (q == 0)))),
    Fault("no mask", "qwen3", SCORED, ("no mask",), code=_mask(lambda q, k: k >= 0)),
    Fault("attention scale 1 / d_head", "llama", SCORED, ("scale 1/d_head",), code=_scaling(lambda a: a.head_dim**-0.5)),
    Fault("attention scale missing", "qwen3", SCORED, ("attention scale 1 =",), code=_scaling(lambda a: 1 / a.scaling)),
    Fault("attention scale by the width of the model", "mixtral", SCORED, ("1/√d_model",), code=_scaling(lambda a: 64**-0.5 / a.scaling)),
    Fault("attention scale off by 3 %", "granite", SCORED, ("scale",), code=_scaling(lambda a: 1.03)),
    Fault("norm of q missing", "qwen3", ("blocks.0.attn.q_norm.out",), ("norm", "not applied"), code=_norm_missing("q_norm")),
    Fault("norm of k missing", "qwen3", ("blocks.0.attn.k_norm.out",), ("norm", "not applied"), code=_norm_missing("k_norm")),
    Fault("epsilon of the norm of q", "qwen3", ("blocks.0.attn.q_norm.out",), ("epsilon 1e-05",), code=_eps("q_norm", 1e-5)),
    Fault("epsilon of the last norm", "llama", ("ln_final.out", "logits"), ("epsilon 0.001",), code=_eps("model.norm", 1e-3)),
    Fault("post-norm of the MLP missing", "gemma2", ("blocks.0.mlp_post.out", "blocks.0.mlp_out"), ("norm",), code=_norm_missing("post_feedforward_layernorm"), early=True),
    Fault("last norm missing", "qwen2", ("ln_final.out", "logits"), ("norm",), code=_lm_head_reads),
    Fault("mean not subtracted", "gpt2", ("blocks.0.ln1.out",), ("mean is not subtracted",), code=_uncentred),
    Fault("mean subtracted", "mixtral", ("blocks.0.ln1.out",), ("mean is subtracted",), code=_centred),
    Fault("weight of a norm not multiplied", "llama", ("blocks.0.ln2.out",), ("weight is not multiplied",), code=_unweighted),
    Fault("weight of norms multiplied as w + 1", "llama", ("blocks.0.ln1.out",), ("w + 1",), code=_plus_one),
    Fault("activation missing", "llama", ("blocks.0.mlp.post",), ("activation identity",), code=_act(torch.nn.Identity())),
    Fault("activation ReLU", "granite", ("blocks.0.mlp.post",), ("activation relu ",), code=_act(torch.nn.ReLU())),
    Fault("activation on the other half", "qwen2", ("blocks.0.mlp.post",), ("applied to the linear half",), code=_halves),
    Fault("stream not added", "llama", ("blocks.1.resid_mid",), ("resid_pre is not added",), code=_no_residual),
    Fault("MLP reads the stream of before the attention", "qwen2", ("blocks.1.ln2.out",), ("resid_pre is read instead of",), code=_parallel),
    Fault("epsilon of no published model", "granite", ("blocks.0.ln1.out",), ("epsilon 3e-05", "fitted"), code=_eps("layernorm", 3e-5)),
    Fault("experts weighed before they are chosen", "mixtral", ("blocks.0.mlp.router_weights", "blocks.0.mlp.out"), ("softmax", "as they are"), code=_router(_whole)),
    Fault("experts weighed by sigmoid", "mixtral", ("blocks.0.mlp.router_weights", "blocks.0.mlp.out"), ("sigmoid",), code=_router(_sigmoid)),
    Fault("the best expert passed over", "mixtral", ("blocks.0.mlp.expert_index",), ("passed over",), code=_router(_after)),
    Fault("the worst experts chosen", "mixtral", ("blocks.0.mlp.expert_index",), ("least",), code=_router(_least)),
    Fault("scale of the embedding missing", "gemma2", ("embed",), ("times 1 instead of 8",), code=_unscaled),
    Fault("bias of k not added", "qwen2", ("blocks.0.attn.k",), ("bias", "b_k", "not added"), code=_bias_not_added),
    Fault("learned positions read two further", "gpt2", ("pos_embed",), ("+2 rows",), code=_positions_read(2)),
)  # fmt: skip
