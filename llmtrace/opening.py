"""From a name to an open model. **Source**: a directory, a file, or the name of a model on a hub; a prefix may name the backend
(`torch:model.gguf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import numpy as np
from attrs import frozen

from llmtrace.errors import BackendNotFoundError, ModelOpenError, OptionError, SchemaViolationError, suggest
from llmtrace.model import Model
from llmtrace.plugins import Plugins, plugins
from llmtrace.protocol import Fit, Preset, Request, TraceBackend, TraceSession
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.schema.verify import distance
from llmtrace.selection import Pick, cut

Options = Mapping[str, str | int | float | bool | None]
ORDER: tuple[Fit, ...] = ("native", "converting", "reference")
PROBE_TOKENS = 3


@frozen
class Choice:
    """Which backend opens a source, and why."""

    source: str
    backend: type[TraceBackend]
    reason: str


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
    session = choice.backend.open(choice.source, settings(choice.backend, preset, options or {}))
    if check:
        try:
            check_neutral(session)
        except BaseException:
            session.close()
            raise
    return Model(session, choice.reason)


def choose(source: str, backend: str | None = None, found: Plugins | None = None) -> Choice:
    """Native before converting before reference; a named backend decides. Raises `BackendNotFoundError`, `ModelOpenError`."""
    found = plugins() if found is None else found
    prefix, _, rest = source.partition(":")
    if backend is None and rest and prefix in found.backends:
        backend, source = prefix, rest
    path = Path(source)
    there = path if path.exists() else None
    if backend is not None:
        return Choice(source, found.backend(backend), "named")
    if there is None and (source.startswith((".", "/", "~")) or path.suffix in (".gguf", ".onnx", ".safetensors", ".trace")):
        raise ModelOpenError(f"There is no file or directory {source!r}.")
    working = [entry.backend for entry in found.backends.values() if entry.status == "ok" and entry.backend is not None]
    fits = {candidate.name: (candidate.probe(source, there), candidate) for candidate in working}
    for fit in ORDER:
        for name in sorted(fits):
            if fits[name][0] == fit:
                return Choice(source, fits[name][1], fit)
    raise _nobody(source, there, found)


def _nobody(source: str, path: Path | None, found: Plugins) -> Exception:
    broken = [f"{entry.name} is broken ({entry.reason})" for entry in found.backends.values() if entry.status == "broken"]
    others = f" {'; '.join(broken)}." if broken else ""
    if path is None:
        return ModelOpenError(f"There is no file or directory {source!r}, and no installed backend opens it by name.{others}")
    return BackendNotFoundError(
        f"No installed backend opens {source!r}; installed are {', '.join(sorted(found.backends))}. "
        f"A GGUF needs llmtrace-torch or llmtrace-llamacpp, an .onnx needs llmtrace-onnxruntime.{others}"
    )


def settings(backend: type[TraceBackend], preset: Preset, options: Options) -> Any:
    """The preset's options with the user's over them, each as its declared type. Raises `OptionError`."""
    if preset not in ("exact", "shipped"):
        raise OptionError(f"There is no preset {preset!r}; there are exact and shipped.")
    declared = get_type_hints(backend.options)
    for name in options:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise OptionError(f"The backend {backend.name} has no option {name!r}; it has {known}.{suggest(name, declared)}")
    values = {name: _as_type(backend.name, name, value, declared[name]) for name, value in options.items()}
    try:
        return attrs.evolve(backend.preset(preset), **values)
    except (ValueError, TypeError) as error:
        raise OptionError(f"The backend {backend.name} refuses its options: {error}") from error


def _as_type(backend: str, name: str, value: object, hint: Any) -> object:
    """Text from a command line as what the option's type says."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not isinstance(value, str) or str in kinds or not all(isinstance(kind, type) for kind in kinds):
        return value
    if NoneType in kinds and value.lower() in ("none", ""):
        return None
    try:
        if bool in kinds:
            return {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}[value.lower()]
        return int(value) if int in kinds else float(value)
    except (KeyError, ValueError) as error:
        raise OptionError(f"The option {name}={value!r} of the backend {backend} is not a {hint}.") from error


class _Logits:
    """Keeps the logits and looks at nothing else."""

    def __init__(self) -> None:
        self.array: Array = np.zeros(0)

    def signal(self, site: str, array: Array) -> None:
        if site == "logits":
            self.array = np.array(array)

    def layer_done(self, layer: int) -> None:
        """Nothing to do."""


def check_neutral(session: TraceSession) -> None:
    """Refuse a model whose logits move when signals are asked for, beyond the tolerance that its backend states.

    Raises `SchemaViolationError`.
    """
    table = steps(session.spec)
    tokens = tuple(token % session.spec.vocab for token in range(1, 1 + min(PROBE_TOKENS, session.spec.context or PROBE_TOKENS)))
    everything = {site: cut(table[site], Pick("**"), len(tokens)) for site in session.offers}
    bare, observed = _Logits(), _Logits()
    session.run(Request(tokens, {"logits": everything["logits"]}), bare)
    session.run(Request(tokens, everything), observed)
    if np.array_equal(bare.array, observed.array, equal_nan=True):
        return
    moved = distance(observed.array, bare.array)[0]
    if not moved <= session.info.capture_tolerance:
        raise SchemaViolationError(
            f"{session.info.source} changes when it is observed: its logits move by {moved:.1e} (relative), and the backend "
            f"{session.info.backend} states {session.info.capture_tolerance:.0e}. It is refused; check=False opens it all the same."
        )
