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
from llmtrace.data import PREFIX, embedded
from llmtrace.errors import ModelOpenError
from llmtrace.model import Model
from llmtrace.neutral import check_neutral
from llmtrace.plugins import BackendEntry, Plugins, plugins
from llmtrace.probing import ORDER, answer
from llmtrace.protocol import Fit, Preset, TraceBackend
from llmtrace.settings import Options, as_text, settings
from llmtrace.unopened import is_path, unopened


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
    note: str = ""
    """Which others open it as well, and why they were not taken; empty where it was the only one of its fit."""


def open(
    source: str | Path,
    *,
    backend: str | None = None,
    preset: Preset = "shipped",
    options: Options | None = None,
    check: bool = True,
) -> Model:
    """Open a model for tracing.

    `source` is a directory or file, a hub id, or an embedded model (`builtin:induction`), which a named backend opens in its own format if
    it brings that, else in the core's; a prefix may name the backend, as `backend` does. `options` are the backend's own
    settings (`llmtrace backends` lists them) and stand above those of the preset. With `check`, a short probe is run with and without
    capture, and a model whose logits move is refused.

    Raises `ModelOpenError`, `BackendNotFoundError`, `OptionError`, `SchemaViolationError`, `BackendError`, each naming the culprit
    and the fix.
    """
    choice = choose(str(source), backend)
    chosen = settings(choice.backend, preset, options or {})
    place = _place(choice)
    with calling(choice.backend.name, "open"):
        session = choice.backend.open(place, chosen)
    try:
        check_contract(session, choice.backend)
        if check:
            check_neutral(session)
    except BaseException:
        with suppress(Exception):  # what was wrong before is what is said
            session.close()
        raise
    notes = (*session.info.notes, *filter(None, [choice.note]))
    info = evolve(session.info, preset=preset, options=as_text(chosen), notes=notes)
    if place != choice.source:
        info = evolve(info, source=choice.source)  # a name that is good on every machine
    return Model(session, choice.reason, info, warnings=choice.warnings)


def choose(source: str, backend: str | None = None, found: Plugins | None = None) -> Choice:
    """The nearest: native before converting before reference; among equals the one that can do more, then the first by name.

    A named backend decides. Raises `BackendNotFoundError`, `ModelOpenError`.
    """
    found = plugins() if found is None else found
    prefix, _, rest = source.partition(":")
    if backend in (None, prefix) and rest and prefix in found.backends:
        backend, source = prefix, rest
    # Path('') is the current directory, and Path.exists raises for a long name
    there = Path(source) if os.path.exists(source) else None
    named = None if backend is None else found.backend(backend)
    if there is None and is_path(source, named is not None):
        raise ModelOpenError(f"There is no file or directory {source!r}.")
    if there is not None and not (there.is_file() or there.is_dir()):
        raise ModelOpenError(f"{source!r} is neither a file nor a directory: name a model.")
    if named is not None:
        return Choice(source, named, "named")
    fits, warnings = probed(source, found)
    for fit in ORDER:
        equals = sorted((found.backends[name] for name in fits if fits[name] == fit), key=_rank)
        if equals:
            name = equals[0].name
            return Choice(
                source, found.backend(name), fit, warnings, _note(name, [each.name for each in equals[1:]], fit)
            )
    broken = [
        f"{entry.name} is broken ({entry.reason})" for entry in found.backends.values() if entry.status == "broken"
    ]
    raise unopened(source, there, sorted(found.backends), [*broken, *warnings])


def probed(source: str, found: Plugins | None = None) -> tuple[dict[str, Fit], tuple[str, ...]]:
    """The working backends that open a source, with how near they are to it; and those whose probe failed, with what it did."""
    found = plugins() if found is None else found
    path = Path(source) if os.path.exists(source) else None
    fits: dict[str, Fit] = {}
    warnings: list[str] = []
    for name, entry in found.backends.items():
        if entry.status != "ok" or entry.backend is None:
            continue
        fit, fault = answer(entry.backend, source, path)
        if fit is not None:
            fits[name] = fit
        if fault:
            warnings.append(f"{name} is broken ({fault})")
    return fits, tuple(warnings)


def _place(choice: Choice) -> str:
    """What the backend is asked to open: for an embedded model whose name it does not know, having no file of its own, the directory."""
    source = choice.source
    if not source.startswith(PREFIX) or os.path.exists(source) or answer(choice.backend, source, None)[0]:
        return source
    return str(embedded(source))


def _rank(entry: BackendEntry) -> tuple[int, str]:
    """Of backends that are equally near: more abilities first."""
    return -len(entry.backend.capabilities if entry.backend is not None else ()), entry.name


def _note(name: str, others: list[str], fit: Fit) -> str:
    if not others:
        return ""
    verb = "opens" if len(others) == 1 else "open"
    return f"{', '.join(others)} {verb} this too, as near ({fit}) as {name}, which was taken: --backend {others[0]} takes the other"
