"""Statistics over prompts. **Replicate**: one prompt, not a token and not a head; **family**: all heads that are scored by one role, of
which the largest statistic under the null decides (Westfall & Young 1993).

Every random choice comes from the generator that is handed in.
"""

from __future__ import annotations

import numpy as np

from llmtrace.schema.sites import Array

RESAMPLES = 10_000
FLIPS = 4_095
LEVEL = 0.95


def interval(values: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """Percentile bootstrap of the mean over prompts, 95 %: [prompt …] → lower and upper, [ …] (Efron & Tibshirani 1993, section 13.3)."""
    count = len(values)
    draws = random.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    tail = (1 - LEVEL) / 2
    means = draws @ values.reshape(count, -1)
    lower, upper = np.quantile(means, [tail, 1 - tail], axis=0)
    return lower.reshape(values.shape[1:]), upper.reshape(values.shape[1:])


def family_p(effects: Array, random: np.random.Generator) -> Array:
    """The chance that the largest of all heads' means would be as large if each prompt's effects were as likely of either sign.

    `effects` are [prompt head], `score - chance` in each prompt. Sign-flip test of the mean's t statistic, one-sided, with max-T
    (Westfall & Young 1993): `p_j = #{flips: max_k T*_k >= T_j} / flips`; all heads of a prompt are flipped together. The first flip flips
    nothing, so that no p is 0. Of few prompts all flips are made.
    """
    count = len(effects)
    if count <= 12:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.concatenate([np.ones((1, count)), random.choice([-1.0, 1.0], (FLIPS, count))])
    flipped = _t(signs @ effects / count, (effects**2).sum(0), count)
    own = flipped[0]  # by the same sums as the others: of equal effects, rounding is all the spread there is
    return np.asarray((flipped.max(-1)[:, None] >= own - 1e-9 * np.abs(own)).mean(0))


def _t(mean: Array, squares: Array, count: int) -> Array:
    """Mean over its standard error; a spread of next to nothing counts as tiny. Flipping signs leaves the sum of squares as it is."""
    variance = np.maximum(squares - count * mean**2, 0) / (count - 1)
    return np.asarray(mean / np.maximum(np.sqrt(variance / count), 1e-12))
