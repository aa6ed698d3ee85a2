"""One cell, measured: opened, run on one prompt, every applicable site looked for and compared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from attrs import frozen

import llmtrace
from llmtrace.errors import LLMTraceError
from llmtrace.model import Model
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, needed, steps
from llmtrace.schema.verify import distance, token_axis
from llmtrace.spec import Mixer, ModelSpec
from llmtrace.trace import Trace
from tests.backends.onnxruntime.exports import ExportError, NotInstalledError, checkpoint, export
from tests.backends.onnxruntime.exports.architectures import PROMPT
from tests.backends.onnxruntime.matrix.cell import Cell, coarse
from tests.backends.onnxruntime.matrix.differs import differences

EQUAL = 1e-5
"""The largest relative error of a whole signal that is equal."""
NEVER = ("result", "scale", "normalized")
"""Sites that no runtime is made to hand out: what a head alone puts out, and what stays inside a norm."""


@frozen(eq=False)
class Known:
    """What PyTorch makes of an architecture's checkpoint; or what the equations make of its weights, where transformers breaks them.

    Eager attention of Falcon in transformers 5.23 adds ALiBi twice, and no exporter follows it in that.
    """

    spec: ModelSpec
    signals: Mapping[str, Array]
    weights: Mapping[str, Array]


def known(architecture: str, directory: Path) -> Known:
    """Run the checkpoint by PyTorch."""
    with llmtrace.open(str(checkpoint(architecture, directory)), backend="torch", preset="exact") as model:
        trace = model.trace(PROMPT)
        broken = any(error.status == "violated" for error in trace.verify())
        weights = {weight.name: np.asarray(model.weights[weight.name]) for weight, _ in needed(model.spec)}
        signals = _computed(trace, weights) if broken else {site: trace[site].array for site in trace}
        return Known(model.spec, signals, weights)


def applicable(spec: ModelSpec) -> dict[str, Step]:
    """The sites that a graph of this model could show."""
    return {site: step for site, step in steps(spec).items() if site.rsplit(".", 1)[-1] not in NEVER}


def measure(exporter: str, architecture: str, directory: Path, by_torch: Known) -> Cell:
    """Make the graph where it is not there, open it, and compare."""
    try:
        path = export(exporter, architecture, directory)
    except (ExportError, NotInstalledError) as error:
        return Cell(exporter, architecture, "not exported", str(error).replace(str(directory), "…"))
    start = time.monotonic()
    try:
        with llmtrace.open(str(path), backend="onnxruntime", preset="exact") as model:
            seconds = round(time.monotonic() - start, 1)
            trace = model.trace(PROMPT)
            return _compared(exporter, architecture, model, trace, by_torch, seconds)
    except LLMTraceError as error:
        return Cell(exporter, architecture, "refused", str(error).replace(str(directory), "…"))


def _compared(exporter: str, architecture: str, model: Model, trace: Trace, by_torch: Known, seconds: float) -> Cell:
    wanted = applicable(by_torch.spec)
    neutral = _neutral(model, by_torch)
    differs = differences(model.spec, by_torch.spec, len(PROMPT), neutral)
    unequal, worst = {}, 0.0
    if coarse(exporter):
        errors = _followed(model)
    else:
        errors = _apart(
            trace, wanted, _computed(trace, {**by_torch.weights, **neutral}) if differs else by_torch.signals
        )
    # of an opaque whole nothing tells whether it follows from the graph's own weights
    whole = {site for site, step in steps(model.spec).items() if isinstance(step.record, Mixer) and coarse(exporter)}
    found = [site for site in wanted if site in trace and site not in whole]
    for site in found:
        error = errors.get(site, np.inf)
        if error <= EQUAL or (coarse(exporter) and error == 0):
            worst = max(worst, error)
        else:
            unequal[site] = float(error)
    captured = sum(trace[site].provenance.kind != "derived" for site in found)
    return Cell(
        exporter,
        architecture,
        "measured",
        applicable=len(wanted),
        captured=captured,
        derived=len(found) - captured,
        equal=len(found) - len(unequal),
        worst=worst,
        differs=differs,
        missed={site: _why(model, site) for site in wanted if site not in found},
        unequal=unequal,
        seconds=seconds,
    )


def _neutral(model: Model, by_torch: Known) -> dict[str, Array]:
    """The weights of norms that the graph has and the checkpoint has not, where they change nothing."""
    missing = (weight.name for weight, _ in needed(model.spec) if weight.name not in by_torch.weights)
    found = {name: np.asarray(model.weights[name]) for name in missing if name.endswith((".w", ".b"))}
    return {name: array for name, array in found.items() if (array == name.endswith(".w")).all()}


def _computed(trace: Trace, weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the equations of a trace's spec make of PyTorch's weights and the prompt; opaque branches put out what they did."""
    given = {"tokens": np.array(PROMPT), "positions": np.arange(len(PROMPT))}
    for site, step in steps(trace.spec).items():
        if isinstance(step.record, Mixer):
            given[site] = trace[site].array
    equations = Equations(trace.spec, weights)
    return dict(equations.run(given, [site for site in applicable(trace.spec) if site not in given]))


def _apart(trace: Trace, wanted: Mapping[str, Step], expected: Mapping[str, Array]) -> dict[str, float]:
    """Relative error of each site that both have; of indices, the share that is another."""
    found = {}
    for site, step in wanted.items():
        if site not in trace or site not in expected:
            continue
        ours, theirs = trace[site].array, expected[site]
        if step.equation.integer:
            found[site] = float((ours != theirs).mean()) if ours.shape == theirs.shape else np.inf
        else:
            found[site] = distance(ours, theirs, token_axis(step))[0]
    return found


def _followed(model: Model) -> dict[str, float]:
    """Of each site: 0 where it follows from the graph's own weights, else by how much it does not; infinitely where nothing tells.

    What is derived follows, since that is how it is made.
    """
    errors = {site: 0.0 for site in steps(model.spec) if site not in model.session.offers}
    for error in model.verify(PROMPT):
        if error.site in model.session.offers:
            errors[error.site] = 0.0 if error.status == "holds" else error.relative_error or np.inf
    return errors


def _why(model: Model, site: str) -> str:
    """Why a site is not there: what the session says of it, or of the branch that it is in."""
    if (gap := model.session.gaps.get(site)) is not None:
        return gap.reason
    layer = ".".join(site.split(".")[:2])
    notes = [note for note in model.info.notes if note.startswith(f"{layer}.")]
    return "; ".join(notes) or "it is no site of the model that the graph computes"
