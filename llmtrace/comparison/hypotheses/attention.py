"""Attention: scale, cap, mask and window, which key head a query head reads, norms of q and k, sinks, gates, biases."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.comparison.hypotheses.fitting import fitted
from llmtrace.comparison.specs import said
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.spec import Attention

SCORED = ("attn.scores", "attn.pattern", "attn.z", "attn.sink")
"""What follows from scores: where scores are not captured, a fault of theirs shows at the first of these."""
LARGE = 1 << 22
"""Scores up to which a number is fitted: of 32 heads, those of 362 tokens."""
HEADS = 32
"""Key heads that are tried one by one, at most."""
CAPS = (50.0, 30.0, 20.0, 100.0)
"""Of published models."""


def _scale(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None or not _through_scores(case):
        return
    scales = {
        "1/√d_head": a.d_head**-0.5, "1": 1.0, "1/d_head": 1 / a.d_head, "1/√d_model": case.reference.spec.d_model**-0.5,
        "the scale twice": a.scale * a.scale, "√d_head": a.d_head**0.5, "1/√(heads · d_head)": (a.heads * a.d_head) ** -0.5,
    }  # fmt: skip
    for name, scale in scales.items():
        if not math.isclose(scale, a.scale, rel_tol=1e-6):
            yield f"attention scale {name} = {scale:.6g} instead of {a.scale:.6g}", _with(case, evolve(a, scale=scale))
    if not _small(case, a):
        return
    best = fitted(lambda scale: case.error(_with(case, evolve(a, scale=scale)))[0], a.scale, decades=4)
    yield (
        f"attention scale {best:.6g} instead of {a.scale:.6g} (fitted: {best / a.scale:.4g} times)",
        _with(case, evolve(a, scale=best)),
    )


def _cap(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None or not _through_scores(case):
        return
    if a.softcap is not None:
        yield f"the softcap of scores ({said(a.softcap)}) is missing", _with(case, evolve(a, softcap=None))
    for cap in CAPS:
        if cap != a.softcap:
            yield f"softcap {cap:g} instead of {said(a.softcap)}", _with(case, evolve(a, softcap=cap))
    if not _small(case, a):
        return
    best = fitted(lambda cap: case.error(_with(case, evolve(a, softcap=cap)))[0], a.softcap or CAPS[0], decades=4)
    yield f"softcap {best:.6g} instead of {said(a.softcap)} (fitted)", _with(case, evolve(a, softcap=best))


def _window(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None:
        return
    if a.window is not None:
        yield f"the window of {a.window:,} is missing", _with(case, evolve(a, window=None))
        yield f"the window is {a.window + 1:,} instead of {a.window:,}", _with(case, evolve(a, window=a.window + 1))
        if a.window > 1:
            yield f"the window is {a.window - 1:,} instead of {a.window:,}", _with(case, evolve(a, window=a.window - 1))
    for window in sorted(
        {b.attention.window for b in case.reference.spec.blocks if b.attention and b.attention.window}
    ):
        if window != a.window:
            yield f"a window of {window:,}, as other blocks have", _with(case, evolve(a, window=window))
    if (seen := _seen(case)) is not None and seen != a.window:
        yield (
            f"a window of {seen:,} instead of {said(a.window)}, read off the mask",
            _with(case, evolve(a, window=seen)),
        )


def _mask(case: Case) -> Iterator[tuple[str, Array]]:
    """Masks that are not causal. The first token, which would see nothing, sees itself."""
    if (a := _attention(case)) is None or (open_ := _product(case, a)) is None:
        return
    places = np.arange(len(case.captured["positions"]))
    behind = places[:, None] - places[None, :]
    near = behind < (a.window or len(places))
    masks = {
        "no mask: every token sees every other": behind <= len(places),
        "the mask is off by one: tokens see one token too far ahead": near & (behind >= -1),
        "the mask is off by one: tokens do not see themselves": near
        & ((behind >= 1) | (places[:, None] + places == 0)),
    }
    scores = f"{case.site[: case.site.index('attn.')]}attn.scores"
    for words, seen in masks.items():
        masked = np.where(seen, open_, -np.inf)
        yield words, masked if case.site == scores else case.predict(put={scores: masked})


def _slopes(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is not None and a.slopes:
        yield "ALiBi's slopes are missing", _with(case, evolve(a, slopes=()))
        yield "ALiBi's slopes in the order of other heads", _with(case, evolve(a, slopes=a.slopes[::-1]))


def _groups(case: Case) -> Iterator[tuple[str, Array]]:
    """Query head h reads key head `h mod kv_heads` instead of `h // group`."""
    if (a := _attention(case)) is None or not 1 < a.kv_heads < a.heads:
        return
    group = a.heads // a.kv_heads
    order = np.arange(a.heads).reshape(group, a.kv_heads).T.ravel()  # heads that read one key head stand together
    names = {"attn.scores": ("rot_q",), "attn.pattern": ("rot_q",), "attn.z": ("rot_q", "pattern", "scores")}
    end = case.site[case.site.index("attn.") :]
    part = case.site[: -len(end)] + "attn."
    put = {}
    for name in names.get(end, ()):
        if (array := case.captured.get(part + name)) is not None:
            put[part + name] = np.asarray(array).take(order, 1 if name == "rot_q" else 0)
    if put:
        axis = 1 if end == "attn.z" else 0
        yield (
            "query head h reads key head h mod kv_heads, not h // group",
            case.predict(put=put).take(np.argsort(order), axis),
        )


def _read_heads(case: Case) -> Iterator[tuple[str, Array]]:
    """Which key head each query head reads: the one that fits it best."""
    if (a := _attention(case)) is None or not 1 < a.kv_heads <= HEADS:
        return
    part = f"{case.site[: case.site.index('attn.')]}attn."
    shared = [part + "v"] if case.site == part + "z" else []
    shared += [part + "rot_k"] if _through_scores(case) else []
    if not shared or any(name not in case.captured for name in shared) or not _small(case, a):
        return
    axis = 1 if case.site == part + "z" else 0
    each = [
        case.predict(put={name: np.asarray(case.captured[name])[:, [head] * a.kv_heads] for name in shared})
        for head in range(a.kv_heads)
    ]
    found = np.moveaxis(case.found, axis, 0)
    fits = [[distance(mine, np.moveaxis(one, axis, 0)[head])[0] for one in each] for head, mine in enumerate(found)]
    read = np.argmin(fits, 1).tolist()
    right = [head // (a.heads // a.kv_heads) for head in range(a.heads)]
    if read != right:
        together = np.stack([np.moveaxis(each[kv], axis, 0)[head] for head, kv in enumerate(read)], axis)
        yield f"query heads read key heads {read} instead of {right}", together


def _qk_norm(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None:
        return
    which = "q" if case.site.endswith("rot_q") else "k"
    if getattr(a, f"{which}_norm") is not None:
        plain = f"{case.site[: case.site.rindex('.')]}.{which}"
        if plain in case.captured and not a.norm_after_rotary:
            normed = f"{plain}_norm.out"
            yield f"the norm of {which} is missing", case.predict(put={normed: np.asarray(case.captured[plain])})
        changed = evolve(a, q_norm=None) if which == "q" else evolve(a, k_norm=None)
        yield f"the norm of {which} is missing", case.predict(case.with_record(a, changed))


def _sinks(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is not None and a.sinks:
        yield "the sinks take no part in the softmax", _with(case, evolve(a, sinks=False))


def _gate(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None:
        return
    if a.gate is not None:
        yield "the gate is missing", _with(case, evolve(a, gate=None))
    if a.z_norm is not None:
        yield "the norm of z is missing", _with(case, evolve(a, z_norm=None))


def _clip(case: Case) -> Iterator[tuple[str, Array]]:
    if (a := _attention(case)) is None:
        return
    if a.clip is not None:
        yield f"the clip at ±{said(a.clip)} is missing", _with(case, evolve(a, clip=None))
    if a.v_norm is not None and case.site.endswith("attn.v"):
        yield "the norm of v is missing", _with(case, evolve(a, v_norm=None))


def _attention(case: Case) -> Attention | None:
    return case.step.record if isinstance(case.step.record, Attention) else None


def _with(case: Case, changed: Attention) -> Array:
    return case.predict(case.with_record(case.step.record, changed))


def _through_scores(case: Case) -> bool:
    """Whether the site is scores, or was computed through scores that are not captured."""
    part = f"{case.site[: case.site.index('attn.')]}attn."
    later = [part + "scores", part + "pattern"]
    before = later[: later.index(case.site)] if case.site in later else later
    return not set(before) & set(case.captured)


def _small(case: Case, a: Attention) -> bool:
    """Whether scores may be worked out dozens of times."""
    return a.heads * len(case.captured["positions"]) ** 2 <= LARGE


def _product(case: Case, a: Attention) -> Array | None:
    """Scores without a mask; None where they cannot be told, or do not enter."""
    part = f"{case.site[: case.site.index('attn.')]}attn."
    q, k = (case.captured.get(part + name) for name in ("rot_q", "rot_k"))
    if q is None or k is None or a.slopes or not _through_scores(case):
        return None
    keys = np.asarray(k).astype(np.float64).repeat(a.heads // a.kv_heads, 1)
    s: Array = a.scale * np.einsum("qhd,khd->hqk", np.asarray(q).astype(np.float64), keys)
    return s if a.softcap is None else a.softcap * np.tanh(s / a.softcap)


def _seen(case: Case) -> int | None:
    """How many tokens the last one sees, where that is fewer than there are."""
    if not case.site.endswith(("attn.scores", "attn.pattern")):
        return None
    row = case.found[0, -1]
    seen = int((np.isfinite(row) if case.site.endswith("scores") else row > 0).sum())
    return seen if 0 < seen < len(row) else None


ROWS = (
    Hypothesis("softcap", SCORED, _cap),
    Hypothesis("window", SCORED, _window),
    Hypothesis("attention-scale", SCORED, _scale),
    Hypothesis("order-of-key-heads", SCORED, _groups),
    Hypothesis("key-heads", SCORED, _read_heads),
    Hypothesis("mask", SCORED, _mask),
    Hypothesis("alibi", SCORED, _slopes),
    Hypothesis("norm-of-q-and-k", ("attn.rot_q", "attn.rot_k"), _qk_norm),
    Hypothesis("sinks", SCORED, _sinks),
    Hypothesis("gate", ("attn.z_post",), _gate),
    Hypothesis("clip", ("attn.q", "attn.k", "attn.v"), _clip),
)
