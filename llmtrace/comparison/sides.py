"""The two sides of a comparison. **Side**: an open model, or a saved trace with the weights of its model where they can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

from attrs import evolve, frozen

from llmtrace.model import Model
from llmtrace.opening import choose
from llmtrace.opening import open as open_model
from llmtrace.origin import open_origin
from llmtrace.protocol import Preset, SupportsWeights
from llmtrace.schema.evaluate import Equations
from llmtrace.settings import Options, settings
from llmtrace.spec import ModelSpec
from llmtrace.trace import ModelInfo, Trace, load

SUFFIX = ".trace"
Given: TypeAlias = "Model | Trace | str | Path"
"""What may stand for a side: an open model, a trace, or the name of either."""


@frozen(eq=False)
class Side:
    """One side."""

    info: ModelInfo
    """Which model, on which runtime."""
    equations: Equations
    """Its spec, and its weights where they can be read."""
    stored: Mapping[str, str]
    """The types in which its weights are stored."""
    model: Model | None = None
    """Open, where it can be run."""
    trace: Trace | None = None
    """Where it was recorded."""
    notes: tuple[str, ...] = ()
    """What a reader should know of it."""

    @property
    def spec(self) -> ModelSpec:
        """What it is."""
        return self.equations.spec

    @property
    def name(self) -> str:
        """For messages."""
        return self.info.source


def check(given: Given, preset: Preset, options: Options | None = None, backend: str | None = None) -> None:
    """Raise what opening a side would for its name and its options, before anything is opened: that takes long."""
    if isinstance(given, str | Path) and not is_trace(given):
        settings(choose(str(given), backend).backend, preset, options or {})


@contextmanager
def opened(
    given: Given, preset: Preset, options: Options | None = None, backend: str | None = None, *, check: bool = True
) -> Iterator[Side]:
    """A side, ready to be run or read; what is opened here is closed. `check` as in `llmtrace.open`. Raises `ModelOpenError` and its kin."""
    file = str(given) if isinstance(given, str | Path) and is_trace(given) else ""
    with ExitStack() as stack:
        if isinstance(given, str | Path):
            given = (
                load(given)
                if is_trace(given)
                else stack.enter_context(
                    open_model(given, backend=backend, preset=preset, options=options, check=check)
                )
            )
        if isinstance(given, Model):
            session = given.session
            stored = session.stored if isinstance(session, SupportsWeights) else {}
            yield Side(given.info, given.equations, stored, model=given)
        elif given.weights:
            yield Side(given.model, given.equations, {}, trace=given)
        else:
            origin = stack.enter_context(open_origin(given))
            recorded = f"{file} was recorded of {given.model.source}." if file else ""
            notes = (*filter(None, [recorded]), *origin.notes, *filter(None, [origin.missing]))
            info = evolve(given.model, source=file or given.model.source)
            yield Side(info, origin.trace.equations, origin.stored, trace=origin.trace, notes=notes)


def named(given: Given) -> str:
    """What a side is called in messages before it is open."""
    if isinstance(given, Model):
        return given.info.source
    return given.model.source if isinstance(given, Trace) else str(given)


def is_trace(source: str | Path) -> bool:
    """Whether a name is that of a saved trace: it ends in `.trace`, and no directory has it.

    >>> is_trace("paris.trace"), is_trace("model.gguf")
    (True, False)
    """
    return str(source).lower().endswith(SUFFIX) and not os.path.isdir(source)
