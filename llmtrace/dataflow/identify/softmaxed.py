"""From scores to a pattern: a plain softmax, or one with **sinks**, logits of a head that read no token (what they take is missing in its rows)."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.dataflow.identify.measured import FLOAT32, Piece, Unfit, double, floor, single, worst
from llmtrace.schema.functions import softmax
from llmtrace.schema.sites import Array

HIDDEN = -3e4
"""The score of a key that the query may not see: finite in float16, and nought after any softmax."""


@frozen(eq=False)
class FoundSoftmax:
    """What a pattern is of its scores."""

    sinks: Array | None
    """The sink logit of each head, [head]; None where rows sum to one."""


def find_softmax(piece: Piece, heads: int, *, length: int = 64, unit: float = FLOAT32) -> FoundSoftmax | Unfit:
    """What a piece makes of scores `[head query key]`; a query sees itself and the keys before it. Sinks from -24 to 24 are seen."""
    rng = np.random.default_rng(0)
    level = rng.permutation(np.linspace(-24, 24, length))[:, None]  # somewhere the sink is as strong as the keys
    later = np.triu(np.ones((length, length), bool), 1)
    scores = double(np.where(later, HIDDEN, rng.normal(size=(heads, length, length)) + level).astype(np.float16))
    found = double(piece(single(scores)))
    if found.shape != scores.shape or not np.isfinite(found).all():
        return Unfit("its output is not one finite number for each score")
    top = scores.max(-1)
    total = np.log(np.exp(scores - top[..., None]).sum(-1)) + top
    missing = 1 - found.sum(-1)
    plain = softmax(scores)
    noise = 16 * unit * (plain + 1 / length) + floor(unit)
    if worst(found, plain, noise) <= 1:
        return FoundSoftmax(None)
    tell = np.clip(missing * (1 - missing), 0, None)
    if not (tell.max(-1) > 0.05).all():
        return Unfit("its rows are neither a softmax nor one in which a logit of the head takes part")
    with np.errstate(all="ignore"):
        logit = np.where(tell > 0, np.log(missing / (1 - missing)) + total, 0)
    sinks = (logit * tell**2).sum(-1) / (tell**2).sum(-1)
    wide = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))], -1)
    off = worst(found, softmax(wide)[..., :-1], noise)
    return (
        FoundSoftmax(sinks)
        if off <= 1
        else Unfit(f"with a sink in each head, it is off by {off:.3g} times what rounding explains")
    )
