"""What a session offers of what was found, how finely it is rounded, and why the rest is missing."""

from __future__ import annotations

from collections.abc import Mapping

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.graph import Graph
from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.showing import COARSER, provenance, storage
from llmtrace.protocol import Gap, Offer
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import GatedMlp, Mlp, Moe, Norm


def precisions(read: ReadModel, probe: Mapping[str, Array], graph: Graph) -> dict[str, Precision]:
    """Of each site: the coarsest type that its value has been in, and the blocks that a product of packed weights rounds its other
    factor to.
    """
    table = steps(read.spec)
    stored = {site: storage(value, probe, graph) for site, (value, _) in read.places.items()}
    return {
        site: Precision(
            storage=min(stored[site], stored.get(_normed(table, site), stored[site]), key=COARSER.index),
            operands=_operands(table[site], read.weights),
            functions=_functions(table[site]),
        )
        for site in read.places
    }


def _normed(table: Mapping[str, Step], site: str) -> str:
    """What a norm reads, if the site is of one: ONNX Runtime computes half precision in float32, and leaves out a rounding that is cast back."""
    quotient = table.get(f"{site.rpartition('.')[0]}.normalized")
    return quotient.signals["x"] if quotient is not None else ""


def _functions(step: Step) -> str:
    """All activations but those that are made of pieces of lines go through a sigmoid or a tanh."""
    record = step.record.expert if isinstance(step.record, Moe) else step.record
    smooth = isinstance(record, Mlp | GatedMlp) and not record.act.startswith("relu")
    return "mlas_logistic" if smooth and step.equation.activation else ""


def _operands(step: Step, weights: Mapping[str, Source]) -> str:
    """What ONNX Runtime rounds the other factor to: its kernel of `accuracy_level` 4 multiplies 8-bit integers, and so do dynamic products."""
    return next((weights[each.name].operands for each in step.weights.values() if each.name in weights), "")


def offers(read: ReadModel, precision: Mapping[str, Precision], probe: Mapping[str, Array]) -> dict[str, Offer]:
    """How each site is handed out."""
    return {
        site: Offer(provenance(form), precision[site], _handed(precision[site], probe[value].dtype.name))
        for site, (value, form) in read.places.items()
    }


def _handed(precision: Precision, dtype: str) -> str:
    """The type of the arrays, where they were coarser before."""
    return dtype if dtype != precision.storage else ""


def gaps(read: ReadModel) -> dict[str, Gap]:
    """Why each site that is not offered is missing."""
    return {site: _gap(site, step, read) for site, step in steps(read.spec).items() if site not in read.places}


def _gap(site: str, step: Step, read: ReadModel) -> Gap:
    name = step.equation.name
    if name == "result":
        return Gap("impossible", "the output matrix sums over heads, so no head's own part is ever computed")
    if isinstance(step.record, Norm):
        return Gap("upstream", "it stays inside the norm")
    if isinstance(step.record, Moe):
        return Gap("upstream", "one operator does all that the experts do, and keeps it to itself")
    if name in ("q", "k", "v", "scores", "pattern", "rot_q", "rot_k"):
        return Gap("upstream", "one operator does all of attention, and keeps it to itself")
    return Gap("upstream", "no value of the graph holds it")


def notes(read: ReadModel) -> tuple[str, ...]:
    """Branches of which only the sum is known, and why."""
    return tuple(f"{at} is captured as a whole and no equation is claimed: {why}" for at, why in read.why.items())
