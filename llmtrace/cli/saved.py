"""Saved traces on the command line: telling one from a model, and finding the weights of the model that it came from.

**Own model**: the one at the trace's source. It is opened by itself only where that source is on this machine, and with none of the
options that the file tells of: a file that came from elsewhere must not make us fetch a model or run its code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmtrace.cli.output import say
from llmtrace.errors import LLMTraceError, ModelOpenError

if TYPE_CHECKING:
    from llmtrace.cli.options import Opening, Out
    from llmtrace.model import Model
    from llmtrace.schema.evaluate import Weights
    from llmtrace.spec import ModelSpec
    from llmtrace.trace import Trace

SUFFIX = ".trace"
UNCHECKED = "so nothing that needs weights was checked"


def is_saved(name: str) -> bool:
    """Whether a name is that of a saved trace: it ends in `.trace`, and no directory has it."""
    return name.lower().endswith(SUFFIX) and not os.path.isdir(name)


@contextmanager
def with_weights(trace: Trace, opening: Opening, origin: str | None, out: Out) -> Iterator[tuple[Trace, str]]:
    """The trace with a model's weights, while that model is open; or as it is, and why.

    `origin` names the model, else the trace's own is tried. Raises `ModelOpenError` and its kin where `origin` cannot be opened, or
    is another model.
    """
    model = _own_model(trace, opening) if origin is None else _open(origin, opening.backend, opening)
    if isinstance(model, str):
        yield trace, f"{model}, {UNCHECKED}. --model names one."
        return
    with model:
        if origin is not None and model.info.fingerprint != trace.model.fingerprint:
            say(out, f"note: {origin} is not the file that this trace was made from.")
        weights = _weights(model, trace.spec)
        missing = "" if weights else f"The backend {model.info.backend} does not read weights, {UNCHECKED}."
        yield trace.with_weights(weights), missing


def _own_model(trace: Trace, opening: Opening) -> Model | str:
    """The model at the trace's source, or why it cannot be had."""
    from llmtrace.data import PREFIX

    source = trace.model.source
    if not os.path.exists(source) and not source.startswith(PREFIX):
        return f"The model of this trace, {source}, is not on this machine"
    try:
        model = _open(source, opening.backend or trace.model.backend, opening)
    except LLMTraceError as error:
        return f"The model of this trace cannot be opened ({error})"
    if model.info.fingerprint != trace.model.fingerprint:
        model.close()
        return f"{source} has changed since this trace was made"
    return model


def _open(source: str, backend: str | None, opening: Opening) -> Model:
    import llmtrace

    return llmtrace.open(source, backend=backend, preset=opening.preset, options=opening.settings, check=False)


def _weights(model: Model, spec: ModelSpec) -> Weights:
    """Raises `ModelOpenError` unless the model has the weights that the trace's equations read, in the same shapes."""
    from llmtrace.schema.steps import steps

    def declared(of: ModelSpec) -> dict[str, tuple[int, ...]]:
        return {weight.name: weight.shape for step in steps(of).values() for weight in step.weights.values()}

    ours, theirs = declared(spec), declared(model.spec)
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise ModelOpenError(
                f"{model.info.source} is another model than that of the trace: {name} has shape {list(theirs.get(name) or ())} "
                f"there, and {list(ours.get(name) or ())} in the trace. Name the model that the trace was made from."
            )
    return model.equations.weights
