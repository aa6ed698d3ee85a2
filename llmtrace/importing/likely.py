"""Why imported signals are not what their model computes. **Own**: what the model itself has at a site, by its equations from the tokens on,
kept from the first violated site on and only where it is another value than the imported one. **Likely**: a change that is known of other
tools, and that makes of the equation's value the one that was found, but for a thousandth of what they differ by. **Inherited**: a signal that
agrees with its equation, and is not the model's own all the same, since what it was computed from is not.

TransformerLens processes a model's weights unless it is told not to (`fold_ln`, `center_writing_weights`, `center_unembed`,
`fold_value_biases`; its `weight_processing.py`): predictions stay, and many signals become other ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from attrs import field, frozen

from llmtrace.errors import SignalUnavailableError
from llmtrace.schema.evaluate import Equations, Look
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, layer_of
from llmtrace.schema.verify import LocalError, distance, token_axis
from llmtrace.spec import Attention, Norm
from llmtrace.trace import Trace
from llmtrace.verifying import Verdicts

REST = 1e-3
"""How much of a difference an explanation may leave over, and how far rounding carries a float32 run from the equations."""
CARRIED = 10
"""The same in tolerances, where that is more."""
FOLDED = "its weight is folded into what reads it (fold_ln), so it is {}"
AFTER = "it is {}, after the norm's weight, as TransformerLens 1 and 2 record a layer norm"
UNBIASED = "its bias is folded into the output's (fold_value_biases)"
CENTRED = {
    "d_model": "its mean over d_model is taken out (center_writing_weights)",
    "vocab": "its mean over the vocabulary is taken out (center_unembed)",
}
SWAPPED = "its axes {} and {} are swapped: say in a map how it is laid out (axes)"
TIMES = "it is {:.4g} times the model's: say so in a map (factor = {:.6g})"
UNMASKED = "it holds {:.4g} where the model's mask hides a key, instead of -inf"
ROUNDED = "all its values are {}'s, which explains the difference: hand it over in that type"
READS = "{}, which it reads, is not the model's own"
ITSELF = "the value itself is"


@frozen
class Likely:
    """What is behind the verdicts on an imported trace."""

    reasons: dict[str, str] = field(factory=dict)
    """The likely reason of a violated signal, by site, where one is known."""
    inherited: list[str] = field(factory=list)
    """The sites that hold and are not the model's own."""


@np.errstate(all="ignore")  # what is not finite explains nothing
def likely(trace: Trace, verdicts: Verdicts) -> Likely:
    """Look for what makes the found values of the expected ones, in dataflow order."""
    equations, found = trace.equations, Likely()
    unreadable = {error.site for error in verdicts.violated if error.unreadable}
    known = {name: trace.known[name] for name in trace.known if name not in unreadable}
    own: dict[str, Array] = {}
    for error in verdicts.judged:
        if error.status == "holds" and not own:
            continue
        step = equations.steps[error.site]
        if step.layer is not None:  # what stands two blocks before is read no more
            own = {site: array for site, array in own.items() if _reached(site, step.layer)}
        try:
            reason, value = _looked_into(equations, step, error, known, own)
        except SignalUnavailableError:  # another weight than those that its own equation reads
            continue
        if value is not None:
            own[error.site] = value
        if error.status == "violated" and reason:
            found.reasons[error.site] = reason
        elif error.status == "holds" and value is not None:
            found.inherited.append(error.site)
    return found


def _reached(site: str, layer: int) -> bool:
    """Whether a block may read a site: one of its own, of the block before, or of none."""
    other = layer_of(site)
    return other is None or other >= layer - 1


def _looked_into(
    equations: Equations, step: Step, error: LocalError, known: dict[str, Array], own: dict[str, Array]
) -> tuple[str, Array | None]:
    """The likely reason of a violated signal, empty where there is none; and the model's own value, where that is another."""
    look = equations.looking(known | own)
    value = equations.evaluate(step.site, look)
    if error.unreadable:  # its own reason says more
        return "", value
    array = equations.cast(known[step.site])
    if error.status == "violated" and (kind := _rounded(known[step.site], error)):
        return ROUNDED.format(kind), None
    near = max(distance(array, value, token_axis(step))) <= max(CARRIED * error.tolerance, REST)
    reads = [name for name in equations.span(step.site, known).known if name in own]
    read = READS.format(" and ".join(reads))
    if error.status != "violated":
        reason = ""
    elif reads and near:
        reason = f"{read}; {ITSELF}"
    else:
        local = equations.looking(known)
        reason = _reason(equations, step, local, error, array, equations.evaluate(step.site, local))
        if not reason and reads:
            reason = "; ".join(filter(None, [read, _reason(equations, step, look, error, array, value)]))
    return reason, None if near else value


def _reason(equations: Equations, step: Step, look: Look, error: LocalError, found: Array, expected: Array) -> str:
    """What makes the expected value the one that was found."""
    if not math.isfinite(error.relative_error):
        return _unmasked(found, expected)
    limit = max(4 * error.tolerance, REST * error.relative_error)
    for candidate, reason in _candidates(equations, step, look, found, expected):
        if max(distance(found, candidate, token_axis(step))) <= limit:
            return reason
    return ""


def _candidates(
    equations: Equations, step: Step, look: Look, found: Array, expected: Array
) -> Iterator[tuple[Array, str]]:
    """Every value that the signal may have, and why it would."""
    site, name, record = step.site, step.equation.name, step.record
    if isinstance(record, Norm) and name == "out":
        normalized = step.signals["normalized"]
        yield look(normalized), FOLDED.format(normalized)
    if isinstance(record, Norm) and name == "normalized":
        out = site.removesuffix(name) + "out"
        yield equations.evaluate(out, lambda _: expected), AFTER.format(out)
    if isinstance(record, Attention) and name == "v" and set(step.signals) == {"x"}:
        for bias in _biases(equations, step, look):
            yield expected - bias, UNBIASED
    if step.axes[-1] in CENTRED:
        yield expected - expected.mean(-1, keepdims=True), CENTRED[step.axes[-1]]
    for one, two in combinations(range(found.ndim), 2):
        if found.shape[one] == found.shape[two]:
            yield expected.swapaxes(one, two), SWAPPED.format(step.axes[one], step.axes[two])
    if times := _times(found, expected):
        yield times * expected, TIMES.format(times, 1 / times)


def _biases(equations: Equations, step: Step, look: Look) -> Iterator[Array]:
    """What v is where it reads nothing, [1, kv_head, d_value]: its own bias; and that with what the bias of the norm before it makes of it."""
    zero = np.zeros_like(look(step.signals["x"])[:1])
    yield equations.evaluate(step.site, lambda _: zero)
    norm = equations.steps[step.signals["x"]]
    if isinstance(norm.record, Norm):
        shift = equations.evaluate(norm.site, lambda _: zero)
        yield equations.evaluate(step.site, lambda _: shift)


def _rounded(array: Array, error: LocalError) -> str:
    """The half precision that an array's values were rounded to before they were kept in a wider type, where that explains an error."""
    for kind in ("bfloat16", "float16"):  # most values of the first are of the second, too
        coarser = ROUNDOFF.get(array.dtype.name, math.inf) < ROUNDOFF[kind]
        if coarser and error.relative_error <= 8 * ROUNDOFF[kind] and (array.astype(kind) == array).all():
            return kind
    return ""


def _times(found: Array, expected: Array) -> float:
    """The factor that brings the expected value nearest to what was found; 0 where none is any use."""
    both = np.isfinite(found) & np.isfinite(expected)
    f, e = found[both], expected[both]
    factor = float((f * e).sum() / (e * e).sum()) if e.any() else 0.0
    return factor if math.isfinite(factor) else 0.0


def _unmasked(found: Array, expected: Array) -> str:
    """Where a mask is another number than -inf, and always the same."""
    values = np.unique(found[np.isneginf(expected)])
    return UNMASKED.format(float(values[0])) if len(values) == 1 and np.isfinite(values[0]) else ""
