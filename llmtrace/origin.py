"""The model that a saved trace came from, opened for its weights. **Own model**: the one at the trace's source. It is opened by itself
only where that source is on this machine, and with none of the options that the file tells of: a file that came from elsewhere must
not make us fetch a model or run its code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import field, frozen

from llmtrace.data import PREFIX
from llmtrace.errors import LLMTraceError, ModelOpenError
from llmtrace.model import Model
from llmtrace.opening import open as open_model
from llmtrace.protocol import Preset, SupportsWeights
from llmtrace.schema.evaluate import Weights
from llmtrace.schema.steps import needed
from llmtrace.settings import Options
from llmtrace.spec import ModelSpec
from llmtrace.trace import Trace

UNCHECKED = "so nothing that needs weights can be checked"


@frozen(eq=False)
class Origin:
    """A saved trace beside what was found of its model."""

    trace: Trace
    """The trace, with the model's weights where they can be had."""
    missing: str = ""
    """Why it has none; empty where it has."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the model that was named."""
    stored: Mapping[str, str] = field(factory=dict)
    """The types in which that model's weights are stored."""


@contextmanager
def open_origin(
    trace: Trace,
    source: str | None = None,
    *,
    backend: str | None = None,
    preset: Preset = "exact",
    options: Options | None = None,
) -> Iterator[Origin]:
    """The trace with its model's weights, while that model is open; or as it is, and why.

    `source` names the model, else the trace's own is tried. Raises `ModelOpenError` and its kin where `source` cannot be opened, or
    is another model.
    """
    model = _own(trace, backend, preset, options) if source is None else _open(source, backend, preset, options)
    if isinstance(model, str):
        yield Origin(trace, f"{model}, {UNCHECKED}. Name its model (--model).")
        return
    with model:
        same = source is None or model.info.fingerprint == trace.model.fingerprint
        notes = () if same else (f"{source} is not the file that this trace was made from.",)
        weights = _weights(model, trace.spec)
        missing = "" if weights else f"The backend {model.info.backend} does not read weights, {UNCHECKED}."
        stored = model.session.stored if isinstance(model.session, SupportsWeights) else {}
        yield Origin(trace.with_weights(weights), missing, notes, stored)


def own_source(trace: Trace) -> str | None:
    """Where the model of a trace is on this machine, if it is: what `open_origin` opens by itself."""
    source = trace.model.source
    return source if os.path.exists(source) or source.startswith(PREFIX) else None


def _own(trace: Trace, backend: str | None, preset: Preset, options: Options | None) -> Model | str:
    """The model at the trace's source, or why it cannot be had."""
    source = own_source(trace)
    if source is None:
        return f"The model of this trace, {trace.model.source}, is not on this machine"
    try:
        model = _open(source, backend or trace.model.backend, preset, options)
    except LLMTraceError as error:
        return f"The model of this trace cannot be opened ({error})"
    if model.info.fingerprint != trace.model.fingerprint:
        model.close()
        return f"{source} has changed since this trace was made"
    return model


def _open(source: str, backend: str | None, preset: Preset, options: Options | None) -> Model:
    return open_model(source, backend=backend, preset=preset, options=options, check=False)


def _weights(model: Model, spec: ModelSpec) -> Weights:
    """Raises `ModelOpenError` unless the model has the weights that the trace's equations read, in the same shapes."""

    def declared(of: ModelSpec) -> dict[str, tuple[int, ...]]:
        return {weight.name: weight.shape for weight, _ in needed(of)}

    ours, theirs = declared(spec), declared(model.spec)
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise ModelOpenError(
                f"{model.info.source} is another model than that of the trace: {name} has shape {list(theirs.get(name) or ())} "
                f"there, and {list(ours.get(name) or ())} in the trace. Name the model that the trace was made from."
            )
    return model.equations.weights
