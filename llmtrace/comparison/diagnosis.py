"""Why a site diverges: explanations are tried on the candidate's own signals, and the one that leaves least is the cause."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from attrs import evolve, frozen

from llmtrace.comparison.case import Case, Hypothesis, scalar_fit
from llmtrace.comparison.record import Cause, Tried
from llmtrace.errors import LLMTraceError
from llmtrace.spec import ModelSpec

BETTER = 0.1
"""Where rounding is not reached, an explanation must leave less than this share of the error to be one."""
FLOOR = 0.25
"""Share of what rounding explains below which two explanations are equally good: the first is taken."""
FIT = 1e-3
"""How near a factor must be to one of the model's own constants."""


@frozen
class Diagnosis:
    """What was tried, and what it came to."""

    cause: Cause | None
    """None: unexplained."""
    tried: tuple[Tried, ...] = ()
    """Of each hypothesis that had an explanation, what left least first."""
    factor: str = ""
    """The scalar that fits the site best, if it is one of the model's own."""


def diagnose(case: Case, hypotheses: Iterable[Hypothesis]) -> Diagnosis:
    """Try every hypothesis about the site. An explanation holds if what it leaves is within rounding, or a tenth of the error at most."""
    try:
        before, worst_before = case.error(case.expected)
    except LLMTraceError:  # what it is made of was not captured, and cannot be derived
        return Diagnosis(None)
    if before <= case.tolerance and worst_before <= 2 * case.tolerance:
        return Diagnosis(None)  # nothing is left to explain: any explanation that changes little would do
    best: Cause | None = None
    tried: dict[str, Tried] = {}
    floor = FLOOR * case.tolerance
    with np.errstate(all="ignore"):
        for hypothesis in hypotheses:
            if not hypothesis.about(case.site):
                continue
            try:
                for words, predicted in hypothesis.tries(case):
                    after, worst = (
                        case.error(predicted) if predicted.shape == case.found.shape else (math.inf, math.inf)
                    )
                    tried[hypothesis.name] = _also(tried.get(hypothesis.name), Tried(hypothesis.name, 1, words, after))
                    better = best is None or max(after, floor) < 0.5 * max(best.after, floor)
                    if _holds(case, before, after, worst) and better:
                        best = Cause(hypothesis.name, words, before, after, hypothesis.harmless)
            except (LLMTraceError, KeyError, ValueError):  # what cannot be asked of this model explains nothing
                continue
        least_first = sorted(tried.values(), key=lambda each: each.left)
        return Diagnosis(best, tuple(least_first), _factor(case))


def _also(before: Tried | None, one: Tried) -> Tried:
    """A hypothesis with one explanation more: what leaves least stands for it."""
    if before is None:
        return one
    return evolve(one if one.left < before.left else before, count=before.count + 1)


def _holds(case: Case, before: float, after: float, worst: float) -> bool:
    if after <= case.tolerance and worst <= 2 * case.tolerance:
        return True
    return math.isfinite(before) and after <= BETTER * before and after <= 10 * case.tolerance


def _factor(case: Case) -> str:
    """`0.125 = 1/√d_head`, where the site is so many times what it should be."""
    fitted = scalar_fit(case.found, case.expected)
    if fitted is None or abs(fitted - 1) <= max(4 * case.tolerance, FIT):
        return ""
    remaining = case.error(
        fitted * np.where(np.isfinite(case.expected), case.expected, 0)
        + np.where(np.isneginf(case.expected), -np.inf, 0)
    )[0]
    if remaining > max(10 * case.tolerance, FIT):
        return ""
    for name, value in constants(case.reference.spec, case).items():
        if math.isclose(fitted, value, rel_tol=max(FIT, 4 * case.tolerance)):
            return f"{fitted:.4g} = {name}"
    return f"{fitted:.4g}"


def constants(spec: ModelSpec, case: Case) -> dict[str, float]:
    """The model's own numbers, by name, and their inverses."""
    sizes = case.step.sizes
    found = {"√d_model": math.sqrt(spec.d_model)}
    if "d_head" in sizes:
        found |= {"√d_head": math.sqrt(sizes["d_head"]), "d_head": float(sizes["d_head"])}
    found |= {"the embedding's scale": spec.embed.scale, "the logits' scale": spec.unembed.scale}
    if case.layer is not None:
        block = spec.blocks[case.layer]
        found |= {f"the multiplier of {branch.name}": branch.multiplier for branch in block.branches}
        if block.attention is not None:
            found["the attention scale"] = block.attention.scale
    found = {name: value for name, value in found.items() if value not in (0.0, 1.0)}
    return found | {f"1/{name}": 1 / value for name, value in found.items()}
