"""The page of backends: their options, with what the two presets set them to."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

import attrs

from llmtrace.plugins import BackendEntry, plugins
from llmtrace.protocol import TraceBackend
from table import NOTICE, code, table

INTRO = """# Backends

A backend traces the models of one runtime. `llmtrace backends` lists those that are installed, the broken ones with the reason.
Options are given as `llmtrace.open(source, options={"threads": 1})` or `-o threads=1`, and stand above those of the preset:
`exact` is what the equations hold tightest on (the default of `verify`), `shipped` the runtime's own defaults (the default of
everything else). Which backend opens a source: its own format before one that it converts before the reference backend; of several
that are equally near, the one that can do more, and a note names the others. `--backend` or a prefix (`torch:model.gguf`) decides.

"""
SHOWN = ("reference", "torch", "onnxruntime", "llamacpp")
"""The backends of this repository; another one that happens to be installed does not belong on the page."""


def page() -> str:
    """The whole page."""
    entries = [plugins().backends[name] for name in SHOWN]
    return (NOTICE + INTRO + "".join(map(_section, entries))).rstrip() + "\n"


def _section(entry: BackendEntry) -> str:
    if entry.backend is None:
        raise LookupError(f"The backend {entry.name} is broken: {entry.reason}")
    backend = entry.backend
    words = inspect.cleandoc(backend.__doc__ or "")
    needs = ", ".join(map(code, backend.distributions)) or "nothing beyond the core"
    text = f"## `{entry.name}`\n\n{words}\n\nRuntime: {backend.runtime}. Distribution: {code(entry.distribution)}. Needs {needs}.\n\n"
    rows = list(_options(backend))
    return text + (table(("option", "type", "exact", "shipped", "what it does"), rows) if rows else "No options.\n\n")


def _options(backend: type[TraceBackend]) -> list[tuple[str, ...]]:
    exact, shipped = backend.preset("exact"), backend.preset("shipped")
    words = docstrings(backend.options)
    return [
        (
            code(f.name),
            code(_type(f.type)),
            code(str(getattr(exact, f.name))),
            code(str(getattr(shipped, f.name))),
            words.get(f.name, ""),
        )
        for f in attrs.fields(backend.options)
    ]


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def docstrings(record: type) -> dict[str, str]:
    """The string that follows each field in the source of a class."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    body = node.body if isinstance(node, ast.ClassDef) else []
    return {
        name: " ".join(inspect.cleandoc(text).split())
        for field, after in itertools.pairwise(body)
        if (name := _field(field)) and (text := _string(after))
    }


def _field(node: ast.stmt) -> str:
    return node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""


def _string(node: ast.stmt) -> str:
    value = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
    return value if isinstance(value, str) else ""
