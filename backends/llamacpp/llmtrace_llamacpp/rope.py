"""How llama.cpp turns q and k by a file's metadata: width, base and **stretch** (linear, YaRN, or a table of divisors in the file).

Whatever the stretch was called in training, the converter wrote it as one of these; Llama 3's is a table.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown
from llmtrace.gguf_header import Header
from llmtrace.spec import Attention, Block, Linear, LongRope, Rotary, Scaling, Yarn
from llmtrace_llamacpp.architectures import Architecture

ONE, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"

DIVIDED = ("mistral3",)
"""Architectures whose files may say that YaRN's factor is divided by another (DeepSeek's `mscale_all_dim`)."""
OWN_BASE = ("gemma2", "gemma3", "gpt-oss")
"""Architectures whose windowed layers take the base that a file may say for them; the others turn all layers alike."""
SWITCHED = ("granite", "granitemoe")
"""Architectures whose files may say that there is no rotary embedding, by `rope.scaling.finetuned`."""


def stretched(block: Block, header: Header, architecture: Architecture) -> Block:
    """The block with its rotary embedding as the file has it; a block without one stays so.

    Raises `ModelOpenError` for values that make no rotary embedding, `UnsupportedModelError` for a stretch of an unknown name.
    """
    branches = tuple(
        evolve(branch, module=_turned(branch.module, branch.module.rotary, header, architecture))
        if isinstance(branch.module, Attention) and branch.module.rotary
        else branch
        for branch in block.branches
    )
    return evolve(block, branches=branches)


def _turned(attention: Attention, rotary: Rotary, header: Header, architecture: Architecture) -> Attention:
    name, windowed, theta = header.architecture, attention.window is not None, rotary.theta
    if windowed:
        base = header.metadata.get(f"{name}.rope.freq_base")
        other = architecture.swa_theta or (theta if base is None else base)
        theta = float(header.metadata.get(f"{name}.rope.freq_base_swa", other) if name in OWN_BASE else other)
    width = header.metadata.get(f"{name}.rope.dimension_count", attention.d_head)
    if type(width) is not int or width % 2 or not 2 <= width <= attention.d_head:
        raise ModelOpenError(
            f"{header.path} says {name}.rope.dimension_count = {shown(width)}; it must be an even number, {attention.d_head} at most."
        )
    if name in SWITCHED and header.metadata.get(f"{name}.rope.scaling.finetuned", True) is False:
        return evolve(attention, rotary=None)
    turn = evolve(rotary, theta=theta, width=width)
    scaling = scaling_of(header, turn) if not windowed or architecture.swa_scaled else None
    return evolve(attention, rotary=evolve(turn, scaling=scaling))


def scaling_of(header: Header, turn: Rotary) -> Scaling | None:
    """The stretch that a file asks for; None where it asks for none. Raises as `stretched` does."""
    name, pairs = header.architecture, turn.width // 2
    kind = header.metadata.get(f"{name}.rope.scaling.type", "linear")
    factor = _positive(header, "rope.scaling.factor", header.metadata.get(f"{name}.rope.scale_linear", 0.0)) or 1.0
    factor = 1.0 if kind == "none" else factor
    gain = _positive(header, "rope.scaling.attn_factor", 1.0)
    multiplier = _positive(header, "rope.scaling.yarn_log_multiplier", 0.0) if name in DIVIDED else 0.0
    whole = 0.1 * multiplier * math.log(max(factor, 1.0)) + 1.0
    context = header.metadata.get(f"{name}.context_length")
    trained = header.metadata.get(f"{name}.rope.scaling.original_context_length", context)
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedModelError(
            f"{header.path} stretches its rotary embedding as {shown(kind)}, which is not expressed."
        )
    tables = [_divisors(header, table, pairs) for table in (ONE, SHORT, LONG)]
    one, short, long = tables
    if kind == "yarn":
        if any(tables):
            raise UnsupportedModelError(f"{header.path} stretches its rotary embedding both by YaRN and by a table.")
        usual = 0.1 * math.log(max(factor, 1.0)) + 1.0
        return Yarn(factor, trained, gain=None if gain == whole == 1.0 else gain * usual / whole)
    if one or short or long:
        near, far = one or short or (1.0,) * pairs, one or long or (1.0,) * pairs
        return LongRope(tuple(f * factor for f in near), tuple(f * factor for f in far), trained, gain)
    if gain != 1.0:
        return LongRope((factor,) * pairs, (factor,) * pairs, trained, gain)
    return Linear(factor) if factor != 1.0 else None


def _positive(header: Header, key: str, default: float) -> float:
    value = header.metadata.get(f"{header.architecture}.{key}", default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ModelOpenError(
            f"{header.path} says {header.architecture}.{key} = {shown(value)}; it must not be negative."
        )
    return float(value)


def _divisors(header: Header, tensor: str, pairs: int) -> tuple[float, ...]:
    """A table of one divisor a frequency; empty where the file has none."""
    info = header.tensors.get(tensor)
    if info is None:
        return ()
    if info.kind != "F32" or info.shape != (pairs,):
        raise ModelOpenError(
            f"{tensor} in {header.path} is {info.kind} of shape {shown(list(info.shape))}; it must be F32 of shape [{pairs}]."
        )
    found = header.packed(tensor).ravel().view("<f4")
    if not (np.isfinite(found) & (found > 0)).all():
        raise ModelOpenError(f"{tensor} in {header.path} has a divisor that is no finite number above zero.")
    return tuple(found.tolist())
