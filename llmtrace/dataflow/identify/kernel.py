"""The kernel of attention: from rotated queries and keys to what enters the softmax.

Zeros at the longest length and at a short one show mask and ALiBi. Then tokens of two sorts: **sharp** ones, of one channel each and with
powers of two for queries and keys, whose score with themselves is exactly `scale` times a power of two; and random ones, which show that
every channel counts, and which key/value head each query head reads. They go in together, or a few at a time where prompts may not be so long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.capped import Capped, scale_and_cap
from llmtrace.dataflow.identify.mask import HIDDEN, FoundMask, Origin, find_mask
from llmtrace.dataflow.identify.measured import FLOAT32, Unfit, double, floor, single, worst
from llmtrace.schema.attention import visible
from llmtrace.schema.functions import softcap
from llmtrace.schema.sites import Array

Kernel: TypeAlias = Callable[[Array, Array], Array]
"""From q `[token head d_head]` and k `[token kv_head d_head]` to `[head query key]`."""
RANDOM = 24
"""Random tokens."""


@frozen(eq=False)
class FoundKernel:
    """How scores follow from queries and keys."""

    scale: float
    """What `rot_q · rot_k` is multiplied by."""
    softcap: float | None
    """As in `Attention`."""
    window: int | None
    """As in `Attention`; None where none shorter than `length` shows."""
    slopes: tuple[float, ...]
    """As in `Attention`."""
    origin: Origin
    """From where the runtime counts ALiBi's distance; but for `query`, `constant` has to be taken off its scores."""
    constant: Array
    """What it adds to each row beyond the schema's scores, at `length` tokens, [head query]."""
    reads: tuple[int, ...]
    """Which key/value head each query head reads."""
    length: int
    """The longest prompt that was tried."""

    def grouped(self, kv_heads: int) -> bool:
        """Whether query head h reads key/value head `h // (heads / kv_heads)`, as the schema has it."""
        return self.reads == tuple(head * kv_heads // len(self.reads) for head in range(len(self.reads)))


@frozen(eq=False)
class Shown:
    """What a prompt of chosen queries and keys shows."""

    tokens: Array
    """Which of the probe's tokens they are."""
    q: Array
    k: Array
    scores: Array
    """With mask and ALiBi taken off."""


def find_kernel(
    piece: Kernel,
    heads: int,
    kv_heads: int,
    d_head: int,
    *,
    longest: int = 1100,
    candidates: Iterable[float] = (),
    unit: float = FLOAT32,
) -> FoundKernel | Unfit:
    """Scale, cap, mask and sharing of heads. `longest`: the most tokens that the caller can afford; `candidates`: numbers that may be scale or cap."""
    q, k, sizes = _probes(heads, kv_heads, d_head)
    short = min(longest, len(q))
    masks = []
    for length in (longest, short):
        bias = np.asarray(
            piece(np.zeros((length, heads, d_head), np.float32), np.zeros((length, kv_heads, d_head), np.float32))
        )
        if bias.shape != (heads, length, length):
            return Unfit(f"it gives {bias.shape} for {length} tokens and {heads} heads")
        mask = find_mask(bias, unit)
        if isinstance(mask, Unfit):
            return mask
        masks.append(mask)
        bias = double(bias) if length == short else bias[:0]  # the long one is large
    mask = masks[0]
    seen = visible(np.arange(short), mask.window)
    if mask.window != masks[1].window and (seen != visible(np.arange(short), masks[1].window)).any():
        return Unfit(f"it sees a window of {mask.window} in {longest} tokens, and of {masks[1].window} in {short}")
    shown = []
    for at in _groups(len(q), short):
        scores = double(piece(single(q[at]), single(k[at])))
        if scores.shape != bias.shape or not np.isfinite(scores[:, seen]).all():
            return Unfit("scores that a query sees are not finite")
        if (scores[:, ~seen] > HIDDEN).any():
            return Unfit("which keys a query sees depends on queries or keys")
        shown.append(Shown(at, q[at], k[at], scores - np.where(seen, bias, 0)))
    return _fit(shown, bias, sizes, seen, mask, longest, list(candidates), unit)


def _groups(count: int, short: int) -> list[Array]:
    """All of some tokens, in prompts of one length; the last begins again where they are over."""
    return [np.arange(start, start + short) % count for start in range(0, count, short)]


def _probes(heads: int, kv_heads: int, d_head: int) -> tuple[Array, Array, Array]:
    """q, k, and the products of the sharp tokens with themselves."""
    rng = np.random.default_rng(0)
    power = np.repeat(np.arange(-10, 15), 2)
    sign = np.resize([1.0, -1.0], len(power))
    q, k = np.zeros((len(power) + RANDOM, heads, d_head)), np.zeros((len(power) + RANDOM, kv_heads, d_head))
    at, channel = np.arange(len(power)), np.arange(len(power)) % d_head
    q[at, :, channel] = (sign * 2.0 ** (power // 2))[:, None]
    k[at, :, channel] = (2.0 ** (power - power // 2))[:, None]
    q[len(power) :], k[len(power) :] = (
        rng.normal(size=(RANDOM, heads, d_head)),
        rng.normal(size=(RANDOM, kv_heads, d_head)),
    )
    return double(q.astype(np.float16)), double(k.astype(np.float16)), sign * 2.0**power


def _fit(
    shown: list[Shown], bias: Array, sizes: Array, seen: Array, mask: FoundMask, length: int, candidates: list[float],
    unit: float,
) -> FoundKernel | Unfit:  # fmt: skip
    heads, (_, kv_heads, d_head) = len(bias), shown[0].k.shape
    x, y, extra = (
        np.concatenate(each) for each in zip(*(_with_themselves(one, bias, sizes, unit) for one in shown), strict=True)
    )
    found = scale_and_cap(x, y, extra, candidates, [d_head**-0.5], unit)
    if isinstance(found, Unfit):
        return Unfit(f"from products to scores, {found.why}")
    off = np.array(
        [
            [max(_off(one, head, kv, found, bias, seen, unit) for one in shown) for kv in range(kv_heads)]
            for head in range(heads)
        ]
    )
    reads, errors = off.argmin(1), off.min(1)
    if errors.max() > 1:
        head = int(errors.argmax())
        return Unfit(
            f"with scale {found.scale:.6g} and cap {found.softcap}, head {head} is off by {errors[head]:.3g} times what rounding explains"
        )
    return FoundKernel(
        found.scale, found.softcap, mask.window, mask.slopes, mask.origin, mask.constant, tuple(reads.tolist()), length
    )


def _with_themselves(one: Shown, bias: Array, sizes: Array, unit: float) -> tuple[Array, Array, Array]:
    """Of sharp tokens with themselves, in all heads: products, scores, and the error that scores have besides their own rounding."""
    (at,) = np.nonzero(one.tokens < len(sizes))
    products = np.broadcast_to(sizes[one.tokens[at]], (len(bias), len(at)))
    return products.ravel(), one.scores[:, at, at].ravel(), 2 * unit * np.abs(bias[:, at, at]).ravel()


def _off(one: Shown, head: int, kv: int, found: Capped, bias: Array, seen: Array, unit: float) -> float:
    """How far the scores of a head are from those with a key/value head, in units of what rounding explains."""
    q, k, scores = one.q[:, head], one.k[:, kv], one.scores[head]
    product, size = found.scale * q @ k.T, abs(found.scale) * np.abs(q) @ np.abs(k).T
    smallest = 8 * floor(unit) * max(1.0, found.softcap or 1.0)
    noise = (8 + q.shape[-1] ** 0.5) * unit * size + unit * (16 * np.abs(scores) + 2 * np.abs(bias[head])) + smallest
    return worst(scores[seen], softcap(product, found.softcap)[seen], noise[seen])
