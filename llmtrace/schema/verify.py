"""Local errors: each captured signal against its equation applied to the capture's own inputs.

**Tolerance**: the relative error that rounding explains at a site, from its equation's row, its inputs and the declared precision.
A signal is judged as a whole and by its worst token; unlike masks, a wrong shape, a non-finite or an all-zero signal are verdicts
of their own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import numpy as np
from attrs import field, frozen

from llmtrace.errors import SignalUnavailableError
from llmtrace.schema.blocks import FELT, ROUNDED, rounded_to
from llmtrace.schema.evaluate import Equations, Look, Signals
from llmtrace.schema.moe import ranking
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step

Status = Literal["holds", "violated", "unchecked", "unavailable"]
NOT_FINITE = "holds NaN or infinite values"
"""The reason of a signal that does."""
SMALL, LARGE = 1e-30, 1e37
"""Sums of squares between which float32 loses nothing: below, some may have vanished; above, some are infinite."""


@frozen
class LocalError:
    """What one equation adds to the error of its own inputs."""

    site: str
    """What was judged."""
    status: Status
    """`unchecked` where nothing captured leads to it."""
    relative_error: float
    """`‖found - expected‖ / ‖expected‖` of the whole signal; infinite where the two cannot be compared."""
    worst_token_error: float
    """The same of the token where it is largest."""
    tolerance: float
    """What rounding explains; the worst token may have twice as much."""
    span: tuple[str, ...]
    """The sites between this one and the captured inputs that it was computed from, itself first."""
    reason: str = ""
    """What a number does not say: unlike masks, a wrong shape, what is missing."""
    worst_token: int | None = None
    """Index of the token where the error is largest; None where nothing was compared."""
    unreadable: bool = False
    """Whether no equation could read the signal: a wrong shape, experts that do not exist, NaN."""
    token_errors: Array | None = field(default=None, eq=False, repr=False)
    """The relative error of every token; None where nothing was compared."""


def verify(
    equations: Equations,
    captured: Signals,
    precision: Mapping[str, Precision],
    wanted: Collection[str] | None = None,
    *,
    felt: bool = True,
) -> Iterator[LocalError]:
    """Every captured site in dataflow order; the first that is violated is where a fault entered.

    `captured` holds whole signals by site, and `tokens` and `positions`. `wanted` are the sites to judge (default: all that were
    captured). A site that cannot be computed from what was captured is `unchecked`; one that no equation could read (a wrong shape,
    experts that do not exist, NaN) is violated, and counts as not captured. Sites in the equations' `given` were not computed by
    the model but put there: they are not judged, and neither is what would have to be computed through one that was not recorded.
    Where operands are rounded to 8 bits and a site is beyond what that costs as a rule, what it costs there is found out by a second
    evaluation (`blocks`), unless `felt` is False.
    """
    misfits = {
        site: why for site in captured if site in equations.steps and (why := _misfit(equations.steps[site], captured))
    }
    fitting = {name: captured[name] for name in captured if name not in misfits} if misfits else captured
    look: Look = equations.looking(fitting)
    layer: int | None = None
    for site, step in equations.steps.items():
        if step.layer not in (layer, None):
            # what was computed on the way is kept for one block, not for the whole model
            look, layer = equations.looking(fitting), step.layer
        if site not in captured or not (wanted is None or site in wanted):
            continue
        if site in equations.given:
            judged = LocalError(site, "unchecked", 0.0, 0.0, 0.0, (site,), "was taken as given or edited, not computed")
        elif site in misfits:
            judged = LocalError(site, "violated", math.inf, math.inf, 0.0, (site,), misfits[site], unreadable=True)
        else:
            with np.errstate(all="ignore"):  # a value that is not finite is a verdict, not a warning
                judged = _judge(equations, step, fitting, look, precision, felt)
        yield judged


def _misfit(step: Step, captured: Signals) -> str:
    """Why no equation could read the signal, if none could."""
    found, shape = captured[step.site], step.shape(len(captured["tokens"]))
    if found.shape != shape:
        return f"has shape {list(found.shape)} instead of {list(shape)}"
    if step.equation.integer:
        if found.dtype.kind not in "iu":
            return f"holds {found.dtype.name} instead of integers"
        if found.size and not 0 <= found.min() <= found.max() < step.sizes["expert"]:
            return f"names experts outside 0 … {step.sizes['expert'] - 1}"
    elif not np.isfinite(found if "key" not in step.axes else np.where(np.isneginf(found), 0, found)).all():
        return NOT_FINITE
    return ""


def _judge(
    equations: Equations,
    step: Step,
    captured: Signals,
    look: Look,
    precision: Mapping[str, Precision],
    feel: bool,
) -> LocalError:
    site, found = step.site, captured[step.site]
    try:
        span = equations.derivable(site, captured, purpose="checked")
    except SignalUnavailableError as lacking:
        zero = "" if found.any() else "is all zero; "
        return LocalError(site, "unchecked", 0.0, 0.0, 0.0, (site,), f"{zero}{lacking}")
    expected = equations.evaluate(site, look)
    limit = math.sqrt(tolerance(equations, site, captured, look, precision))
    if step.equation.integer:
        return _judge_choice(equations, step, found, expected, look, limit, span.through)
    axis = token_axis(step)
    error, each = measured(found, expected, axis)
    worst, where = worst_of(each)
    reason, most = _reason(step, found, expected, error), 2 * limit
    if feel and not reason and not (error <= limit and worst <= most):
        felt = _felt(equations, step, expected, look, precision.get(site, Precision()))
        limit, most = max(limit, felt[0]), max(most, 2 * felt[0], felt[1])
    holds = not reason and error <= limit and worst <= most
    status: Status = "holds" if holds else "violated"
    return LocalError(site, status, error, worst, limit, span.through, reason, where, reason == NOT_FINITE, each)


def _felt(equations: Equations, step: Step, expected: Array, look: Look, precision: Precision) -> tuple[float, float]:
    """What rounding a product's operands to 8 bits explains, of the whole and of the worst token (`blocks`)."""
    if precision.operands not in ROUNDED or not step.equation.sums:
        return 0.0, 0.0
    rounded = equations.evaluate(step.site, lambda name: rounded_to(precision.operands, look(name)))
    felt, most = distance(rounded, expected, token_axis(step))
    return FELT * felt, FELT * most


def _reason(step: Step, found: Array, expected: Array, error: float) -> str:
    """Why the two cannot be compared by a number, if they cannot."""
    if "key" not in step.axes and math.isfinite(error):  # no masks, and `_misfit` has seen that all is finite
        return "is all zero" if error and not found.any() else ""
    masked, mask = np.isneginf(found), np.isneginf(expected)
    if not np.isfinite(found[~masked]).all() or (masked.any() and not mask.any()):
        return NOT_FINITE
    if (masked != mask).any():
        return "the masks differ"
    if error and not np.where(np.isneginf(found), 0, found).any():
        return "is all zero"
    return ""


def _judge_choice(
    equations: Equations, step: Step, found: Array, expected: Array, look: Look, limit: float, through: tuple[str, ...]
) -> LocalError:
    """Experts are integers: they agree exactly, or what ranks them was tied within rounding, which is said.

    The margin is relative to the router's logits. Scores after a sigmoid or softmax move less than the logits do, so the bound
    holds for corrected scores too.
    """
    site, other = step.site, (found != expected).any(-1)
    parted = np.nonzero(other)[0]
    if not len(parted):
        return LocalError(site, "holds", 0.0, 0.0, 0.0, through, token_errors=np.zeros(len(found)))
    logits = look(step.signals["router"])
    correction = equations.weight(step.weights["b_correction"]) if "b_correction" in step.weights else None
    ranked = (logits if correction is None else ranking(step.record, logits, correction))[parted]
    gaps = np.abs(np.take_along_axis(ranked, found[parted], -1) - np.take_along_axis(ranked, expected[parted], -1)).max(
        -1
    )
    margins = gaps / np.sqrt((logits[parted] ** 2).mean(-1))
    worst, share = float(margins.max()), len(parted) / len(found)
    status: Status = "holds" if worst <= 2 * max(limit, 4 * float(np.finfo(np.float32).eps)) else "violated"
    kind = "a tie within rounding" if status == "holds" else "other experts"
    reason = f"{kind} at token {parted[0]}, margin {worst:.1e}"
    where = int(parted[0])
    return LocalError(site, status, share, 1.0, limit, through, reason, where, token_errors=other.astype(np.float64))


def distance(found: Array, expected: Array, axis: int = 0) -> tuple[float, float]:
    """`‖found - expected‖ / ‖expected‖`, of the whole and of the worst token, `axis` counting tokens.

    Masked entries (-inf) are left out where both have them; unlike masks or shapes are infinitely far. Zero against zero is 0.
    """
    whole, each = measured(found, expected, axis)
    return whole, worst_of(each)[0]


@np.errstate(all="ignore")  # a value that is not finite is infinitely far, not a warning
def measured(found: Array, expected: Array, axis: int = 0) -> tuple[float, Array | None]:
    """The relative error of the whole, and of each token [token]; None for unlike masks or shapes, which are infinitely far."""
    if found.shape != expected.shape:
        return math.inf, None
    single = found.dtype == expected.dtype == np.float32  # the difference of two that are near is a float32, too
    apart = np.subtract(found, expected, dtype=np.float32 if single else np.float64)
    error, size = _each(apart, axis), _each(expected, axis)
    if not (np.isfinite(error).all() and np.isfinite(size).all()):
        mask = np.isneginf(expected)
        if (np.isneginf(found) != mask).any():
            return math.inf, None
        f, e = (np.where(mask, 0.0, x) for x in (found, expected))
        error, size = (_each(x, axis) for x in (np.subtract(f, e, dtype=np.float64), e))
    each = np.sqrt(error / size)  # as `ratio`
    each[error == 0], each[~np.isfinite(error)] = 0.0, np.inf
    return ratio(float(error.sum()), float(size.sum())), each


def worst_of(each: Array | None) -> tuple[float, int | None]:
    """The largest error of a token and where it is, the first of equals; None for unlike masks or shapes, or no tokens."""
    if each is None:
        return math.inf, None
    return (float(each.max()), int(each.argmax())) if each.size else (0.0, None)


def _each(x: Array, axis: int) -> Array:
    """The sum of squares of each token: in float32 where it can hold them, which takes a quarter of the time, or in float64."""
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    if x.dtype != np.float32:
        return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    sums: Array = np.einsum("ij,ij->i", rows, rows).astype(np.float64)
    beyond = ~((sums > SMALL) & (sums < LARGE))
    if beyond.any():
        sums[beyond] = np.einsum("ij,ij->i", rows[beyond], rows[beyond], dtype=np.float64)
    return sums


def ratio(error: float, size: float) -> float:
    """`√(error / size)`, where 0/0 is 0, x/0 is infinite, and NaN is infinite too."""
    if not math.isfinite(error):
        return math.inf
    return math.sqrt(error / size) if size else math.inf if error else 0.0


def tolerance(
    equations: Equations, site: str, captured: Signals, look: Look, precision: Mapping[str, Precision]
) -> float:
    """The *squared* relative error that rounding explains: `16 (u_s² + u_o² + u_f²) + (K + noise) u_a²`, and what derived inputs
    inherit, enlarged.

    u_s and u_a are the round-offs of storage and accumulation, K the length of the sums that make the site (16 where there are
    none); u_o is that of a product's operands and u_f that of an activation's table, where the runtime has such. A clean capture
    stays below it, which the tests hold in float32, float16 and bfloat16; how far below is not promised. What lies between a site
    and its captured inputs was rounded as the site itself was.
    """
    return _tolerance(equations, site, captured, look, precision, precision.get(site, Precision()))


def _tolerance(
    equations: Equations,
    site: str,
    captured: Signals,
    look: Look,
    precision: Mapping[str, Precision],
    judged: Precision,
) -> float:
    step = equations.steps[site]
    signals = {parameter: look(name) for parameter, name in step.signals.items()}
    sizes = step.sizes | {"key": len(captured["tokens"])}
    terms = math.prod([sizes[axis] for axis in step.equation.sums]) if step.equation.sums else 16
    at = precision.get(site, judged)
    rounded = at.storage_roundoff**2
    if step.equation.sums:
        rounded += at.operand_roundoff**2
    if step.equation.activation:
        rounded += at.function_roundoff**2
    own = 16 * rounded + (terms + step.equation.noise(step.record, signals)) * at.accumulation_roundoff**2
    derived = [name for name in step.inputs if name not in captured and name in equations.steps]
    inherited = sum(_tolerance(equations, name, captured, look, precision, judged) for name in derived)
    return own + step.equation.gain(step.record, signals) * inherited


def token_axis(step: Step) -> int:
    """The axis that counts tokens (for scores and patterns: queries)."""
    return next(place for place, axis in enumerate(step.axes) if axis in ("token", "query"))
