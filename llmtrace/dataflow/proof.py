"""What was read, held to the equations: each signal that was found must follow from the others on a prompt, or the part is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import evolve

from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.weights import SourcedWeights
from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of
from llmtrace.schema.verify import NOT_FINITE, LocalError, verify
from llmtrace.spec import Block, Branch, Mixer, ModelSpec


def proven(
    read: ReadModel, signals: Mapping[str, Array], precision: Mapping[str, Precision], *, finite: bool = True
) -> ReadModel:
    """The model without the branches of which an equation does not hold on captured signals. `finite`: whether its weights are; what one makes that
    is not proves nothing.

    Raises `UnsupportedModelError` where one does not hold at the ends of the stream or between blocks.
    """
    while violated := [
        error
        for error in _violated(read, signals, precision)
        if finite or (error.reason != NOT_FINITE and math.isfinite(error.relative_error))
    ]:
        worst = violated[0]
        found = _branch(read.spec, worst.site)
        if found is None:
            raise UnsupportedModelError(
                f"The graph was read as a decoder in which {worst.site} does not follow from what it is made of: {_said(worst)}. It "
                "computes something else there."
            )
        read = _without(read, *found, worst.site, _said(worst))
    return read


def _violated(read: ReadModel, signals: Mapping[str, Array], precision: Mapping[str, Precision]) -> list[LocalError]:
    known = {name: array for name, array in signals.items() if name in read.places or name in ("tokens", "positions")}
    equations = Equations(read.spec, SourcedWeights(read.weights))
    return [error for error in verify(equations, known, precision) if error.status == "violated"]


def _said(error: LocalError) -> str:
    if error.reason:
        return f"{error.site} {error.reason}"
    return f"{error.site} is off by {error.relative_error:.2g}, and rounding explains {error.tolerance or 0.0:.2g}"


def _branch(spec: ModelSpec, site: str) -> tuple[int, str] | None:
    """The layer and the name of the branch that a site belongs to, if the spec claims to know that branch, or the norm that it reads."""
    layer = layer_of(site)
    if layer is None:
        return None
    part = site.split(".")[2]
    block = spec.blocks[layer]
    if f"{part}.out" in (block.carry_mid.reads, block.carry_post.reads):
        return None
    for branch in block.branches:
        own = part in (branch.name, f"{branch.name}_post", f"{branch.name}_out") and not isinstance(
            branch.module, Mixer
        )
        if own or branch.reads == f"{part}.out":
            return layer, branch.name
    return None


def _without(read: ReadModel, layer: int, name: str, site: str, why: str) -> ReadModel:
    """One branch made opaque, and if it is its norm that does not hold without that; norms that nothing reads any more go."""
    at = f"blocks.{layer}."
    block = read.spec.blocks[layer]
    branches = tuple(_opaque(block, branch, site) if branch.name == name else branch for branch in block.branches)
    needed = {block.carry_mid.reads, block.carry_post.reads, *(branch.reads for branch in branches)}
    norms = tuple(norm for norm in block.norms if f"{norm.name}.out" in needed)
    gone = {f"{at}{name}.", f"{at}{name}_post.", f"{at}{name}_out."}
    gone |= {f"{at}{norm.name}." for norm in block.norms if norm not in norms}

    def kept(names: Mapping[str, object]) -> set[str]:
        return {each for each in names if not each.startswith(tuple(gone))}

    places, weights = kept(read.places), kept(read.weights)
    blocks = list(read.spec.blocks)
    blocks[layer] = evolve(block, norms=norms, branches=branches)
    return evolve(
        read,
        spec=evolve(read.spec, blocks=tuple(blocks)),
        places={site: read.places[site] for site in read.places if site in places},
        weights={each: read.weights[each] for each in read.weights if each in weights},
        why=read.why | {at + name: why},
    )


def _opaque(block: Block, branch: Branch, site: str) -> Branch:
    part = site.split(".")[2]
    norm = next((norm for norm in block.norms if branch.reads == f"{norm.name}.out" and norm.name == part), None)
    return Branch(branch.name, norm.reads if norm else branch.reads, Mixer("unread"))
