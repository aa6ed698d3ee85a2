"""The page of the spec: every record with its fields, as their docstrings say, and the activations that an MLP or a gate may name."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from types import FunctionType
from typing import Any

import attrs

import llmtrace.spec
from llmtrace.schema import functions
from llmtrace.schema.functions import ACTIVATIONS
from table import NOTICE, code, table

INTRO = """# The spec of a model

What a model is, as frozen records of `llmtrace.spec`. A record holds the numbers of one part and no arrays; what a field leaves at its
default, the model does not have. From the spec follow [the sites, their equations and the weights](sites.md); how one is put together,
[the guide](../plugins.md#tracesessionspec) shows on a model. A default of `–` means that the field must be given.

"""
ACTS = """## Activations

What `act` may name. `x` is what goes in; where a runtime rounds otherwise, it is another function, and has a name here or is refused.

"""


def page() -> str:
    """The whole page."""
    kinds = [getattr(llmtrace.spec, name) for name in llmtrace.spec.__all__]
    records = [kind for kind in kinds if isinstance(kind, type) and attrs.has(kind)]
    return (
        NOTICE + INTRO + "".join(map(described, sorted(records, key=_place))) + ACTS + _activations()
    ).rstrip() + "\n"


def _place(kind: type) -> tuple[int, int]:
    """The model first, then what it is made of, each file in its own order."""
    files = ("model", "block", "attention", "rotary", "norm", "mlp")
    return files.index(kind.__module__.rpartition(".")[2]), inspect.getsourcelines(kind)[1]


def described(kind: type[Any]) -> str:
    """A record's section: its own words, and its fields."""
    said = dict(_docstrings(kind))
    rows = []
    for field in attrs.fields(kind):
        if field.name not in said:
            raise LookupError(f"The field {field.name} of {kind.__name__} has no docstring.")
        rows.append((code(field.name), code(_type(field.type)), _default(field), said[field.name]))
    head = ("field", "type", "default", "what")
    words = inspect.cleandoc(kind.__doc__ or "")
    return f"## `{kind.__name__}`\n\n{words}\n\n" + (table(head, rows) if rows else "")


def _type(hint: Any) -> str:
    return hint if isinstance(hint, str) else str(getattr(hint, "__name__", hint))


def _default(field: attrs.Attribute[Any]) -> str:
    value: Any = field.default
    if value is attrs.NOTHING:
        return "–"
    made: Any = getattr(value, "factory", None)  # a default that is made anew for each record
    return str(code(f"{made.__name__}()" if made is not None else repr(value)))


def _docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """The string below each annotation of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    for field, below in pairwise(tree.body if isinstance(tree, ast.ClassDef) else []):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def _activations() -> str:
    """Name and formula, from the table that the equations call."""
    for node in ast.parse(inspect.getsource(functions)).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id="ACTIVATIONS"), value=ast.Dict(values=written)):
                shown = zip(ACTIVATIONS.items(), written, strict=True)
                rows = [(code(name), code(_formula(value, function))) for (name, function), value in shown]
                return str(table(("name", "formula"), rows))
    raise LookupError("ACTIVATIONS is no dictionary that can be read.")


def _formula(value: ast.expr, function: Any) -> str:
    """What a function of one number returns, as it is written."""
    if isinstance(value, ast.Lambda):
        return _plain(value.body)
    if not isinstance(function, FunctionType):
        return ast.unparse(value).removeprefix("np.") + "(x)"
    if function.__doc__:
        return str(function.__doc__.split("`")[1])
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    last = tree.body[-1] if isinstance(tree, ast.FunctionDef) else None
    if not isinstance(last, ast.Return) or last.value is None:
        raise LookupError(f"{function.__name__} cannot be shown: give it a docstring with a formula in backticks.")
    return _plain(last.value)


def _plain(body: ast.expr) -> str:
    """Without the names of modules and the wrapping of arrays."""
    if isinstance(body, ast.Call) and ast.unparse(body.func) == "np.asarray":
        body = body.args[0]
    return ast.unparse(body).replace("np.", "").replace("math.", "").replace("_gelu", "gelu")
