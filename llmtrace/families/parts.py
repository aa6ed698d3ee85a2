"""What nearly all configs say in the same words: attention, MLP, norms, windows, and the model around the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from attrs import evolve

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown, suggest
from llmtrace.families.config import Config
from llmtrace.families.rope import context, rotary
from llmtrace.spec import Attention, Block, Embedding, GatedMlp, Mlp, ModelSpec, Norm, Positions, Unembedding

ACTS: dict[str, str] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_10": "gelu_10",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "mish": "mish",
    "laplace": "laplace",
    "linear": "identity",
}
"""Activations as transformers calls them, to the schema's names."""

FULL, SLIDING = "full_attention", "sliding_attention"


def act(c: Config, name: str) -> str:
    """The schema's name of an activation. Raises `UnsupportedModelError` for one that the equations lack."""
    if name not in ACTS:
        raise UnsupportedModelError(
            f"{c.model_type} uses the activation {name!r:.60}, which is not in the table.{suggest(str(name)[:60], ACTS)}"
        )
    return ACTS[name]


def refuse(c: Config, **unless: object) -> None:
    """Raise `UnsupportedModelError` if a key has another value than the only one that the equations express."""
    for key, only in unless.items():
        value = c.get(key, only)
        if value != only:
            raise UnsupportedModelError(
                f"{c.model_type} with {key}={shown(value)} is not expressed by the equations, only {only!r}."
            )


def d_head(c: Config) -> int:
    """Channels a head: `head_dim`, or an equal share of the width."""
    return int(c.get("head_dim") or c.hidden_size // c.num_attention_heads)


def attention(
    c: Config,
    *,
    biases: str | None = None,
    kind: str = "",
    theta: str = "rope_theta",
    layout: Literal["half", "interleaved"] = "half",
) -> Attention:
    """Rotary attention; `biases` default to all four where `attention_bias` is set."""
    width, heads = d_head(c), int(c.num_attention_heads)
    if biases is None:
        biases = "QKVO" if c.get("attention_bias") else ""
    turn = rotary(c, width, kind=kind, theta=theta, layout=layout)
    return Attention(heads, int(c.get("num_key_value_heads") or heads), width, width, width**-0.5, turn, biases=biases)


def head_normed(a: Attention, eps: float) -> Attention:
    """With q and k normed head by head."""
    return evolve(a, q_norm=Norm(eps, over="d_head"), k_norm=Norm(eps, over="d_head"))


def wholly_normed(a: Attention, eps: float) -> Attention:
    """With q and k normed over all their heads at once."""
    return evolve(a, q_norm=Norm(eps, over="head d_head"), k_norm=Norm(eps, over="kv_head d_head"))


def gated(c: Config, *, bias: bool | None = None, width: int | None = None) -> GatedMlp:
    """A gated MLP; `bias` defaults to `mlp_bias`."""
    return GatedMlp(
        width or c.intermediate_size, act(c, c.hidden_act), bool(c.get("mlp_bias") if bias is None else bias)
    )


def plain(c: Config, width: int, name: str, *, bias: bool = True) -> Mlp:
    """An MLP of two matrices."""
    return Mlp(width, act(c, name), bias)


def rms(c: Config) -> Norm:
    """The root-mean-square norm of the stream."""
    return Norm(c.rms_norm_eps)


def layer_norm(eps: float, *, weight: bool = True, bias: bool = True) -> Norm:
    """A layer norm of the stream."""
    return Norm(eps, centred=True, weight=weight, bias=bias)


def layer_types(c: Config, default: Callable[[int], str]) -> list[str]:
    """`full_attention` or `sliding_attention` for every layer; any other kind is refused by name."""
    kinds = c.get("layer_types") or [default(layer) for layer in range(c.num_hidden_layers)]
    if len(kinds) != c.num_hidden_layers:
        raise ModelOpenError(f"config.json has {len(kinds)} layer_types for {c.num_hidden_layers} layers.")
    if unknown := sorted(set(kinds) - {FULL, SLIDING}):
        raise UnsupportedModelError(
            f"{c.model_type} has layers of the kind {unknown[0]!r:.60}, which the equations do not express."
        )
    return list(kinds)


def windowed(a: Attention, c: Config, kind: str) -> Attention:
    """With the config's window, where the layer slides."""
    return evolve(a, window=window(c.sliding_window) if kind == SLIDING else None)


def window(tokens: int | None) -> int | None:
    """A window that sees nothing is none."""
    return int(tokens) if tokens else None


def model(
    c: Config,
    blocks: Iterable[Block],
    norm: Norm,
    *,
    embed: Embedding | None = None,
    positions: Positions | None = None,
    unembed: Unembedding | None = None,
    limited: bool = True,
) -> ModelSpec:
    """The blocks between embedding and unembedding; `limited` says whether there is a longest prompt."""
    longest = context(c) if limited else None
    head = evolve(unembed or Unembedding(), tied=bool(c.tie_word_embeddings))
    return ModelSpec(
        c.model_type, c.hidden_size, c.vocab_size, longest, tuple(blocks), norm, embed or Embedding(), positions, head
    )


def alike(c: Config, block: Block) -> tuple[Block, ...]:
    """The same block in every layer."""
    return (block,) * int(c.num_hidden_layers)
