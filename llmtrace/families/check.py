"""What every spec must satisfy, whatever a config says."""

from __future__ import annotations

import math
from typing import Any

import attrs

from llmtrace.errors import ModelOpenError
from llmtrace.spec import LongRope, ModelSpec, Moe


def check(spec: ModelSpec) -> ModelSpec:
    """The spec itself. Raises `ModelOpenError` if its numbers contradict each other."""
    if not spec.blocks:
        raise ModelOpenError(f"config.json describes a {spec.family} model without layers.")
    for name, size in _sizes(spec).items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ModelOpenError(f"config.json gives this {spec.family} model {name} = {size!r}; it must be a positive integer.")
    _numbers(spec, spec.family)
    for block in dict.fromkeys(spec.blocks):
        attn = block.attention
        if attn and attn.window is not None and attn.window < 1:
            raise ModelOpenError(f"config.json has a window of {attn.window} tokens; a query sees at least itself.")
        if attn and attn.heads % attn.kv_heads:
            raise ModelOpenError(f"config.json has {attn.heads} query heads, which {attn.kv_heads} key/value heads cannot share evenly.")
        if attn and attn.rotary:
            width, scaling = attn.rotary.width, attn.rotary.scaling
            if width > attn.d_head:
                raise ModelOpenError(f"config.json rotates {width} channels of heads that have {attn.d_head}.")
            if isinstance(scaling, LongRope) and {len(scaling.short), len(scaling.long)} != {width // 2}:
                raise ModelOpenError(f"config.json has LongRoPE factors that are not {width // 2} numbers each.")
        for branch in block.branches:
            if isinstance(branch.module, Moe) and branch.module.choices > branch.module.experts:
                raise ModelOpenError(f"config.json chooses {branch.module.choices} of {branch.module.experts} experts.")
    return spec


def _numbers(record: Any, family: str) -> None:
    """Walk the tree: what should be a number is one, and finite."""
    for row in attrs.fields(type(record)):
        value = getattr(record, row.name)
        if str(row.type).startswith("float") and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ModelOpenError(f"config.json gives this {family} model {row.name} = {value!r}; it must be a finite number.")
        elif attrs.has(type(value)):
            _numbers(value, family)
        elif isinstance(value, tuple):
            for one in dict.fromkeys(value):
                if attrs.has(type(one)):
                    _numbers(one, family)


def _sizes(spec: ModelSpec) -> dict[str, Any]:
    """Every size that a config states, by the schema's axis name."""
    sizes: dict[str, Any] = dict(spec.sizes) | ({"context": spec.context} if spec.context is not None else {})
    for block in dict.fromkeys(spec.blocks):
        for branch in block.branches:
            sizes |= getattr(branch.module, "sizes", {})
    return sizes
