"""Graphs that are opened, and what is known of them from elsewhere: the spec and weights that they were written from, or PyTorch's model."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from attrs import frozen

import llmtrace
from llmtrace.model import Model
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import ModelSpec
from llmtrace.trace import Trace
from llmtrace_onnxruntime.writing import write_onnx
from tests.backends.onnxruntime.written import TOKENS, Drawn, drawn

ROUNDING = 2e-5
"""Relative, of a whole signal in float32."""


@frozen(eq=False)
class Opened:
    """An open graph, and what it was written from."""

    model: Model
    source: Drawn

    @property
    def module(self):
        """What the first block's branches are, by name."""
        return {branch.name: branch.module for branch in self.model.spec.blocks[0].branches}


def opened(
    spec: ModelSpec,
    directory: Path,
    style: str = "plain",
    change: Callable[[onnx.GraphProto], None] | None = None,
    kind: str = "float32",
) -> Opened:
    """A spec with random weights, written, changed and opened."""
    source = drawn(spec)
    path = write_onnx(source, directory / "model.onnx", style=style, kind=kind)
    if change is not None:
        proto = onnx.load(path)
        change(proto.graph)
        onnx.save(proto, path)
    return Opened(open_graph(path), source)


def open_graph(path: Path) -> Model:
    """As closely computed as ONNX Runtime can."""
    return llmtrace.open(str(path), backend="onnxruntime", preset="exact")


def differing(one: Opened, derived: bool = False) -> dict[str, float]:
    """The signals that ONNX Runtime hands out, or also what is derived, that are not those of the source: site to relative error."""
    inputs = {"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
    trace = one.model.trace(list(TOKENS))
    captured = {site for site in trace.signals if derived or trace[site].provenance.kind != "derived"}
    wanted = dict(Equations(one.source.spec, one.source.weights, np.float64).run(inputs, captured))
    assert captured
    return _off({site: trace[site].array for site in captured}, wanted)


def unlike(found: Trace, wanted: Trace) -> dict[str, float]:
    """The signals of one trace that are not those of another: site to relative error; infinite where one is missing."""
    assert wanted.signals
    return _off(
        {site: found[site].array for site in wanted.signals if site in found.signals},
        {site: wanted[site].array for site in wanted.signals},
    )


def _off(found, wanted) -> dict[str, float]:
    errors = {site: error(found[site], array) if site in found else np.inf for site, array in wanted.items()}
    return {site: off for site, off in errors.items() if off > ROUNDING}


def error(found, wanted) -> float:
    """Relative; infinite for other shapes, masks or experts."""
    if found.shape != wanted.shape:
        return np.inf
    if wanted.dtype.kind in "iu":
        return 0.0 if (found == wanted).all() else np.inf
    hidden = np.isneginf(wanted)
    if (np.isneginf(found) != hidden).any():
        return np.inf
    f, w = (np.where(hidden, 0, each).astype(np.float64) for each in (found, wanted))
    return float(np.linalg.norm(f - w) / np.linalg.norm(w)) if w.any() else float(np.abs(f).max(initial=0.0))


def altered(one: Opened) -> list[str]:
    """The source's weights that are not read back to the last bit."""
    found = one.model.weights
    return [
        name
        for name, array in one.source.weights.items()
        if name not in found or not np.array_equal(found[name], array)
    ]


def violated(model: Model) -> list[str]:
    """The sites that do not follow from the others."""
    return [each.site for each in model.verify(list(TOKENS)) if each.status == "violated"]


def exported(family: str, directory: Path, exporter: str = "torchscript", **overrides):
    """A tiny checkpoint, and its graph by torch's exporter."""
    from llmtrace.testing.tiny import write_tiny
    from tests.backends.onnxruntime.exports import dynamo, torchscript

    checkpoint, out = directory / "checkpoint", directory / "graph"
    out.mkdir()
    with contextlib.redirect_stderr(io.StringIO()):
        write_tiny(family, checkpoint, **overrides)
        (torchscript if exporter == "torchscript" else dynamo).make(checkpoint, out)
    return checkpoint, out / "model.onnx"
