"""From a name to an open model. **Source**: a directory, a file, or the name of a model on a hub; a prefix may name the backend
(`torch:model.gguf`).
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import evolve, frozen

from llmtrace.errors import BackendNotFoundError, ModelOpenError
from llmtrace.model import Model
from llmtrace.neutral import check_neutral
from llmtrace.plugins import Plugins, plugins
from llmtrace.protocol import Fit, Preset, TraceBackend
from llmtrace.settings import Options, as_text, settings

ORDER: tuple[Fit, ...] = ("native", "converting", "reference")


@frozen
class Choice:
    """Which backend opens a source, and why."""

    source: str
    """Without the prefix that named a backend."""
    backend: type[TraceBackend]
    """Its class."""
    reason: str
    """`native`, `converting`, `reference` or `named`."""


def open(
    source: str | Path,
    *,
    backend: str | None = None,
    preset: Preset = "shipped",
    options: Options | None = None,
    check: bool = True,
) -> Model:
    """Open a model for tracing.

    `source` is a directory or file, or a hub id; a prefix may name the backend, as `backend` does. `options` are the backend's own
    settings (`llmtrace backends` lists them) and stand above those of the preset. With `check`, a short probe is run with and without
    capture, and a model whose logits move is refused.

    Raises `ModelOpenError`, `BackendNotFoundError`, `OptionError`, each naming the culprit and the fix.
    """
    choice = choose(str(source), backend)
    chosen = settings(choice.backend, preset, options or {})
    session = choice.backend.open(choice.source, chosen)
    if check:
        try:
            check_neutral(session)
        except BaseException:
            session.close()
            raise
    return Model(session, choice.reason, evolve(session.info, preset=preset, options=as_text(chosen)))


def choose(source: str, backend: str | None = None, found: Plugins | None = None) -> Choice:
    """Native before converting before reference; a named backend decides. Raises `BackendNotFoundError`, `ModelOpenError`."""
    found = plugins() if found is None else found
    prefix, _, rest = source.partition(":")
    if backend in (None, prefix) and rest and prefix in found.backends:
        backend, source = prefix, rest
    path = Path(source)
    there = path if os.path.exists(source) else None  # Path('') is the current directory, and Path.exists raises for a long name
    if backend is not None:
        return Choice(source, found.backend(backend), "named")
    if there is None and (source.startswith((".", "/", "~")) or path.suffix in (".gguf", ".onnx", ".safetensors", ".trace")):
        raise ModelOpenError(f"There is no file or directory {source!r}.")
    working = [entry.backend for entry in found.backends.values() if entry.status == "ok" and entry.backend is not None]
    broken = [f"{entry.name} is broken ({entry.reason})" for entry in found.backends.values() if entry.status == "broken"]
    fits: dict[str, tuple[Fit | None, type[TraceBackend]]] = {}
    for candidate in working:
        try:
            fits[candidate.name] = (candidate.probe(source, there), candidate)
        except Exception as error:  # a stranger's probe may raise anything; the others still open what they can
            broken.append(f"{candidate.name} is broken (its probe failed: {type(error).__name__}: {error})")
    for fit in ORDER:
        for name in sorted(fits):
            if fits[name][0] == fit:
                return Choice(source, fits[name][1], fit)
    raise _nobody(source, there, found, broken)


def _nobody(source: str, path: Path | None, found: Plugins, broken: list[str]) -> Exception:
    others = f" {'; '.join(broken)}." if broken else ""
    if path is None:
        return ModelOpenError(f"There is no file or directory {source!r}, and no installed backend opens it by name.{others}")
    return BackendNotFoundError(
        f"No installed backend opens {source!r}; installed are {', '.join(sorted(found.backends))}. "
        f"A GGUF needs llmtrace-torch or llmtrace-llamacpp, an .onnx needs llmtrace-onnxruntime.{others}"
    )
