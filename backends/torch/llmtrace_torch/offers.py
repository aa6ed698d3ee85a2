"""What a session offers of what was located, how finely it is rounded, and why the rest is missing."""

from __future__ import annotations

import torch

from llmtrace.protocol import Gap, Offer
from llmtrace.schema.precision import Precision
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import ModelSpec, Norm
from llmtrace.trace import CAPTURED, Provenance
from llmtrace_torch.locate import Located, Place

SINGLE = ("rot_q", "rot_k", "pattern", "router_weights")
"""Sites that transformers computes in float32 whatever the model's type; norms are the others."""


def offers(spec: ModelSpec, located: Located, device: str) -> dict[str, Offer]:
    """How each located site is handed out, in dataflow order."""
    table = steps(spec)
    return {
        site: Offer(_provenance(place), _precision(table[site], place, device))
        for site, place in located.places.items()
    }


def _provenance(place: Place) -> Provenance:
    """Captured as it passes, or re-expressed exactly: a piece cut out, heads split, a factor taken out."""
    if place.divisor != 1.0:
        return Provenance("converted", f"divided by {place.divisor:.9g}")
    if "|" in place.tap.axes:
        return Provenance("converted", "a piece of a fused projection")
    if "(" in place.tap.axes:
        return Provenance("converted", "heads split")
    return CAPTURED


def _precision(step: Step, place: Place, device: str) -> Precision:
    if place.dtype == "int64":
        return Precision("int64", "float32")
    if place.dtype == "float64":
        single = isinstance(step.record, Norm) or step.equation.name in SINGLE
        return Precision("float64", "float32" if single else "float64")
    return Precision(place.dtype, "tf32" if device == "cuda" and torch.backends.cuda.matmul.allow_tf32 else "float32")


def gaps(spec: ModelSpec, located: Located, kernel: str) -> dict[str, Gap]:
    """Why each site that is not located is missing."""
    return {site: _gap(step, located, kernel) for site, step in steps(spec).items() if site not in located.places}


def _gap(step: Step, located: Located, kernel: str) -> Gap:
    name = step.equation.name
    if name == "result":
        return Gap("impossible", "the output matrix sums over heads, so no head's own part is ever computed")
    if name in ("scores", "pattern", "sink") and kernel != "eager":
        return Gap("upstream", f"the {kernel} kernel keeps it to itself; attention=eager hands out the pattern")
    if name in ("rot_q", "rot_k", "v", "pattern") and located.refused:
        return Gap("upstream", located.refused)
    if isinstance(step.record, Norm):
        return Gap("upstream", "it stays inside the norm's module")
    return Gap("upstream", "no module of the loaded model has it as its input or output")
