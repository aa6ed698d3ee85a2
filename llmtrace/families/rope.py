"""Rotary embedding from a config, in either spelling: `rope_parameters` (perhaps one for each kind of layer) or `rope_theta` and
`rope_scaling`. What the equations cannot express is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown, suggest
from llmtrace.families.config import Config
from llmtrace.spec import DynamicNtk, Linear, Llama3, LongRope, Rotary, Scaling, Yarn

Parameters = Mapping[str, Any]


def rotary(
    c: Config,
    d_head: int,
    *,
    kind: str = "",
    theta: str = "rope_theta",
    layout: Literal["half", "interleaved"] = "half",
) -> Rotary:
    """The rotary of a head; `kind` is the layer's (`full_attention`, …) where kinds differ, `theta` the old key of its base.

    Raises `UnsupportedModelError` for an unknown type and `ModelOpenError` for a missing parameter.
    """
    p = parameters(c, kind)
    name = p.get("rope_type") or p.get("type") or "default"
    if name not in SCALINGS:
        raise UnsupportedModelError(
            f"{c.model_type} asks for rope_type {name!r:.60}, which the equations do not express.{suggest(str(name)[:60], SCALINGS)}"
        )
    fraction = p.get("partial_rotary_factor") or c.get("partial_rotary_factor") or 1.0
    width = int(d_head * float(fraction))  # a text or a list would be repeated
    if width % 2 or width < 2:
        raise UnsupportedModelError(
            f"{c.model_type} rotates {shown(width)} of {shown(d_head)} channels: only an even number makes pairs."
        )
    base = getattr(c, theta) if p.get("rope_theta") is None else p["rope_theta"]
    return Rotary(float(base), width, layout, SCALINGS[name](c, p))


def parameters(c: Config, kind: str = "") -> Parameters:
    """The rotary parameters of one kind of layer. The old spelling scales full-attention layers only, where kinds differ."""
    given = c.get("rope_parameters") or {}
    old = c.get("rope_scaling") or {}
    if kind:
        given = given.get(kind) or ({} if any(isinstance(value, Mapping) for value in given.values()) else given)
        return {**given, **(old if kind == "full_attention" else {})}
    if any(isinstance(value, Mapping) for value in given.values()):
        raise UnsupportedModelError(
            f"{c.model_type} has rope_parameters for several kinds of layers, where one is known."
        )
    return dict(old or given)


def context(c: Config) -> int:
    """The longest prompt: dynamic NTK goes beyond `max_position_embeddings` by its factor."""
    longest = int(c.max_position_embeddings)
    p = c.get("rope_scaling") or c.get("rope_parameters") or {}
    return int(longest * float(_get(c, p, "factor"))) if "dynamic" in (p.get("rope_type"), p.get("type")) else longest


def _get(c: Config, p: Parameters, key: str) -> Any:
    if p.get(key) is None:
        raise ModelOpenError(f"config.json of this {c.model_type} model scales its rotary embedding but lacks {key!r}.")
    return p[key]


def _trained(c: Config, p: Parameters) -> int:
    """The context that the model was trained on, before it was stretched."""
    return int(
        c.get("original_max_position_embeddings")
        or p.get("original_max_position_embeddings")
        or c.max_position_embeddings
    )


def _yarn(c: Config, p: Parameters) -> Yarn:
    factor = p.get("factor") or c.max_position_embeddings / _trained(c, p)
    gain = p.get("attention_factor")
    if gain is None and p.get("mscale") and p.get("mscale_all_dim"):
        gain = _mscale(factor, p["mscale"]) / _mscale(factor, p["mscale_all_dim"])
    fast, slow = p.get("beta_fast") or 32.0, p.get("beta_slow") or 1.0
    return Yarn(float(factor), _trained(c, p), float(fast), float(slow), bool(p.get("truncate", True)), gain)


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _llama3(c: Config, p: Parameters) -> Llama3:
    factor, low, high = (float(_get(c, p, key)) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    return Llama3(factor, low, high, _trained(c, p))


def _longrope(c: Config, p: Parameters) -> LongRope:
    context = _trained(c, p)
    factor = p.get("factor") or c.max_position_embeddings / context
    gain = p.get("attention_factor")
    if gain is None:
        gain = math.sqrt(1 + math.log(factor) / math.log(context)) if factor > 1 else 1.0
    return LongRope(tuple(_get(c, p, "short_factor")), tuple(_get(c, p, "long_factor")), context, float(gain))


SCALINGS: dict[str, Callable[[Config, Parameters], Scaling | None]] = {
    "default": lambda c, p: None,
    "linear": lambda c, p: Linear(float(_get(c, p, "factor"))),
    "dynamic": lambda c, p: DynamicNtk(float(_get(c, p, "factor")), int(c.max_position_embeddings)),
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
    "su": _longrope,
}
"""`rope_type` of a config to the spec's record; `su` is Phi-3's first name for LongRoPE."""
