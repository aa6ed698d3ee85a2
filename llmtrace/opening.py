"""From a name to an open model. **Source**: a directory, a file, or the name of a model on a hub; a prefix may name the backend
(`torch:model.gguf`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from attrs import evolve, frozen

from llmtrace.calling import calling
from llmtrace.contract import check_contract
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
    warnings: tuple[str, ...] = ()
    """Backends that could not say whether they open it, and why."""


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

    Raises `ModelOpenError`, `BackendNotFoundError`, `OptionError`, `SchemaViolationError`, `BackendError`, each naming the culprit
    and the fix.
    """
    choice = choose(str(source), backend)
    chosen = settings(choice.backend, preset, options or {})
    with calling(choice.backend.name, "open"):
        session = choice.backend.open(choice.source, chosen)
    try:
        check_contract(session, choice.backend)
        if check:
            check_neutral(session)
    except BaseException:
        with suppress(Exception):  # what was wrong before is what is said
            session.close()
        raise
    info = evolve(session.info, preset=preset, options=as_text(chosen))
    return Model(session, choice.reason, info, warnings=choice.warnings)


def choose(source: str, backend: str | None = None, found: Plugins | None = None) -> Choice:
    """Native before converting before reference; a named backend decides. Raises `BackendNotFoundError`, `ModelOpenError`."""
    found = plugins() if found is None else found
    prefix, _, rest = source.partition(":")
    if backend in (None, prefix) and rest and prefix in found.backends:
        backend, source = prefix, rest
    path = Path(source)
    # Path('') is the current directory, and Path.exists raises for a long name
    there = path if os.path.exists(source) else None
    if backend is not None:
        return Choice(source, found.backend(backend), "named")
    if there is None and (
        source.startswith((".", "/", "~")) or path.suffix in (".gguf", ".onnx", ".safetensors", ".trace")
    ):
        raise ModelOpenError(f"There is no file or directory {source!r}.")
    fits, warnings = probed(source, found)
    for fit in ORDER:
        for name in sorted(fits):
            if fits[name] == fit:
                return Choice(source, found.backend(name), fit, warnings)
    broken = [
        f"{entry.name} is broken ({entry.reason})" for entry in found.backends.values() if entry.status == "broken"
    ]
    raise _nobody(source, there, found, [*broken, *warnings])


def probed(source: str, found: Plugins | None = None) -> tuple[dict[str, Fit], tuple[str, ...]]:
    """The working backends that open a source, with how near they are to it; and those whose probe failed, with what it did."""
    found = plugins() if found is None else found
    path = Path(source) if os.path.exists(source) else None
    fits: dict[str, Fit] = {}
    warnings: list[str] = []
    for name, entry in found.backends.items():
        if entry.status != "ok" or entry.backend is None:
            continue
        try:
            fit = entry.backend.probe(source, path)
        # a stranger's probe may raise anything; the others still open what they can
        except (Exception, SystemExit) as error:
            warnings.append(f"{name} is broken (its probe failed: {type(error).__name__}: {error})")
            continue
        if fit in ORDER:
            fits[name] = fit
        elif fit is not None:
            warnings.append(f"{name} is broken (its probe answered {fit!r}, which is not {', '.join(ORDER)} or None)")
    return fits, tuple(warnings)


def _nobody(source: str, path: Path | None, found: Plugins, broken: list[str]) -> Exception:
    others = f" {'; '.join(broken)}." if broken else ""
    if path is None:
        return ModelOpenError(
            f"There is no file or directory {source!r}, and no installed backend opens it by name.{others}"
        )
    return BackendNotFoundError(
        f"No installed backend opens {source!r}; installed are {', '.join(sorted(found.backends))}. "
        f"A GGUF needs llmtrace-torch or llmtrace-llamacpp, an .onnx needs llmtrace-onnxruntime.{others}"
    )
