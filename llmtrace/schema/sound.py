"""What every spec must satisfy, whoever wrote it. **Sound**: its numbers are numbers in their range that do not contradict each other, and
its names are the schema's, so that every equation can be evaluated and every site be printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import attrs

from llmtrace.errors import ModelOpenError
from llmtrace.schema.functions import ACTIVATIONS
from llmtrace.spec import (
    Attention,
    Block,
    Branch,
    Clamp,
    DynamicNtk,
    Gate,
    GatedMlp,
    Groups,
    Head,
    Linear,
    Llama3,
    LongRope,
    Mixer,
    Mlp,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    PreNorm,
    Rotary,
    Shared,
    Unembedding,
    Yarn,
)

POSITIVE: dict[type, tuple[str, ...]] = {
    Linear: ("factor",),
    DynamicNtk: ("factor",),
    Yarn: ("factor", "fast", "slow"),
    Llama3: ("factor",),
    Rotary: ("theta",),
    Clamp: ("limit",),
    Attention: ("clip", "softcap"),
    Unembedding: ("softcap",),
}
"""Numbers that an equation divides by, or takes the logarithm or the root of."""
AXES = ("d_model", "d_head", "d_value", "head", "kv_head", "d_mlp", "q_rank", "kv_rank")
"""What a norm may run over, or have a weight of its own for each of."""
MODULES = {"attn": Attention | Mixer, "mlp": Mlp | GatedMlp | Moe | Mixer, "mixer": Mixer}
"""What a branch of each name holds; one that could not be read is a mixer, whatever its name."""
STREAM = ("resid_pre", "resid_mid")
NORM = re.compile(r"ln[1-9]\d?")
ZERO = ("offset", "start", "shared")
"""Integers that may be nought."""
LARGEST = 2**62
"""No size or number of positions is as large, and all below fit what the equations compute with."""
WORD = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def sound(spec: ModelSpec, where: str = "config.json") -> ModelSpec:
    """The spec itself. Raises `ModelOpenError` if it is not sound; `where` names who says so in the message."""
    if not WORD.fullmatch(spec.family):
        raise ModelOpenError(f"{where} calls its family {spec.family!r:.60}; that must be a plain name.")
    if not spec.blocks:
        raise ModelOpenError(f"{where} describes a {spec.family} model without layers.")
    records = list(_records(spec))
    for fault in filter(
        None, chain(map(_number, records), map(_contradiction, records))
    ):  # only numbers can be compared
        raise ModelOpenError(f"{where} gives this {spec.family} model {fault}.")
    return spec


def _records(record: Any) -> Iterator[Any]:
    """A record and all records in it, equal ones of a tuple once."""
    yield record
    for row in attrs.fields(type(record)):
        value = getattr(record, row.name)
        for inner in dict.fromkeys(value) if isinstance(value, tuple) else (value,):
            if attrs.has(type(inner)):
                yield from _records(inner)


def _number(record: Any) -> str:
    """The first field that is not the number it should be, and what it should be; or nothing."""
    positive = POSITIVE.get(type(record), ())
    for row in attrs.fields(type(record)):
        value = getattr(record, row.name)
        kind = (
            row.type.__name__ if row.type in (int, float) else str(row.type)
        )  # a text until cattrs resolves it in place
        if value is None and kind.endswith("| None"):
            continue
        for one in value if kind.startswith("tuple[float") else (value,):
            if kind.startswith("int") and (type(one) is not int or not (row.name not in ZERO) <= one < LARGEST):
                return f"{row.name} = {_shown(one)}; it must be a positive integer"
            if kind.startswith(("float", "tuple[float")) and (
                isinstance(one, bool) or not isinstance(one, int | float) or not _finite(one)
            ):
                return f"{row.name} = {_shown(one)}; it must be a finite number"
        if row.name in positive and value <= 0:
            return f"{row.name} = {value}; it must be above zero"
    return ""


def _shown(value: Any) -> str:
    """A value for a message: Python refuses to write out integers of thousands of digits."""
    return f"{value!r:.40}" if type(value) is not int or abs(value) < LARGEST else "an integer of too many digits"


def _finite(number: float) -> bool:
    """Whether it fits a float: an integer may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _contradiction(record: Any) -> str:
    """What does not fit together in a record, or is no name of the schema; or nothing."""
    match record:
        case Norm(eps=eps) if eps < 0:
            return f"eps = {eps} in a norm; it must not be negative"
        case Norm(over=over, each=each):
            axes = [*each.split(), *over.split()]
            if not over.split() or not set(axes) <= set(AXES) or len(axes) != len(set(axes)):
                return f"a norm over {' '.join(axes)!r:.60}; its axes are among {', '.join(AXES)}"
        case Branch(followed=False, post=post, multiplier=multiplier, weight=weight) if (
            post or multiplier != 1 or weight
        ):
            return "a contribution of which it is not known how it is made, and something that makes it"
        case Mlp(act="xielu"):
            pass
        case Mlp(act=act) | GatedMlp(act=act) | Gate(act=act) | Head(act=act) if act not in ACTIVATIONS:
            return f"the activation {act!r:.40}; the equations know {', '.join(ACTIVATIONS)}"
        case Moe(experts=experts, choices=choices) if choices > experts:
            return f"{choices} choices of {experts} experts"
        case Moe(expert=Mlp(act="xielu")) | Shared(expert=Mlp(act="xielu")):
            return "experts of xIELU, whose numbers experts do not have"
        case Moe(expert=GatedMlp(inner_norm=Norm())) | Shared(expert=GatedMlp(inner_norm=Norm())):
            return "experts with a norm before their last matrix, which the equations do not know"
        case Moe(experts=experts, choices=choices, groups=Groups(count=count, choices=groups, best=best)):
            return _groups(experts, choices, count, groups, best)
        case Mixer(kind=kind) if not WORD.fullmatch(kind):
            return f"a mixer of the kind {kind!r:.60}; that must be a plain name"
        case Positions(length=length, offset=offset) if offset >= length:
            return f"a table of {length} positions that begins at {offset}"
        case Attention():
            return _attention(record)
        case Rotary():
            return _rotary(record)
        case Block():
            return _block(record)
        case _:
            pass
    return ""


def _groups(experts: int, choices: int, count: int, groups: int, best: int) -> str:
    if experts % count or groups > count:
        return f"{groups} of {count} groups of {experts} experts"
    if choices > groups * (experts // count) or best > experts // count:
        return f"{choices} choices of {groups} groups of {experts // count} experts, ranked by {best} of them"
    return ""


def _attention(a: Attention) -> str:
    if a.heads % a.kv_heads:
        return f"{a.heads} query heads, which {a.kv_heads} key/value heads cannot share evenly"
    if a.slopes and len(a.slopes) != a.heads:
        return f"{len(a.slopes)} slopes for {a.heads} heads"
    if a.rotary and a.rotary.start + a.rotary.width > a.d_head:
        begin = f" from {a.rotary.start} on" if a.rotary.start else ""
        return f"{a.rotary.width} rotated channels{begin} of heads that have {a.d_head}"
    if (a.q_latent and a.q_latent.axis != "q_rank") or (a.kv_latent and a.kv_latent.axis != "kv_rank"):
        return "a latent on another axis than its own; they are q_rank and kv_rank"
    if a.shared and (a.kv_latent is None or a.shared >= a.d_head):
        return f"{a.shared} shared channels of keys, which need a latent and channels of their own"
    if not set(a.biases) <= set("QKVO"):
        return f"biases {a.biases!r:.40}; the projections are Q, K, V and O"
    if not a.mixed and (a.gate or a.z_norm or a.sinks_after):
        return "a z_post of which it is not known how it is made, and something that makes it"
    if a.sinks_after and (not a.sinks or a.z_norm):
        return "sinks that are taken off z, and none that are learned, or a norm of z"
    if not a.projected and (a.rotary or a.q_norm or a.k_norm or a.v_norm or a.clip or set(a.biases) - {"O"}):
        return "an attention of which it is not known how q, k and v are made, and something that is done to them"
    return ""


def _rotary(r: Rotary) -> str:
    pairs, odd = divmod(r.width, 2)
    if odd:
        return f"{r.width} rotated channels; only an even number makes pairs"
    match r.scaling:
        case LongRope(short=short, long=long) if {len(short), len(long)} != {pairs}:
            return f"LongRoPE factors that are not {pairs} numbers each"
        case LongRope(short=short, long=long) if min(*short, *long) <= 0:
            return f"a LongRoPE factor of {min(*short, *long)}; they must be above zero"
        case DynamicNtk() if pairs < 2:
            return "a dynamic rotary base for one pair of channels; it needs two"
        case Yarn() if r.theta <= 1:
            return f"theta = {r.theta} with YaRN, whose bounds are logarithms to that base; it must be above one"
        case Llama3(low=low, high=high) if not 0 <= low < high:
            return f"rotary bounds of {low} and {high} turns; the first must be below the second"
        case _:
            return ""


def _block(block: Block) -> str:
    norms, branches = [norm.name for norm in block.norms], [branch.name for branch in block.branches]
    for name in norms:
        if not NORM.fullmatch(name) or norms.count(name) > 1:
            return f"a norm called {name!r:.60}; they are ln1, ln2, …, each once"
    for branch in block.branches:
        if (
            branch.name not in MODULES
            or branches.count(branch.name) > 1
            or not isinstance(branch.module, MODULES[branch.name])
        ):
            return f"a branch {branch.name!r:.60} that is {type(branch.module).__name__}; they are attn, mlp and mixer, each once"
    sources = (*STREAM, *(f"{name}.out" for name in norms))
    readers: tuple[PreNorm | Branch, ...] = (*block.norms, *block.branches)
    for reader in readers:
        if reader.reads not in (STREAM if isinstance(reader, PreNorm) else sources):
            return f"a part {reader.name} that reads {reader.reads!r:.60}; it may read {', '.join(sources)}"
    if block.carry_pre.reads:
        return f"a stream that goes on into a block as {block.carry_pre.reads!r:.60}; it may as itself only"
    for carry in (block.carry_mid, block.carry_post):
        if carry.reads not in ("", *sources[len(STREAM) :]):
            return f"a stream that goes on as {carry.reads!r:.60}; it may as {', '.join(sources[len(STREAM) :]) or 'itself only'}"
    return ""
