"""The manifest's JSON Schema (draft 2020-12), made from the records themselves; `docs/schemas/` holds what this returns."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from llmtrace.store.manifest import Manifest
from llmtrace.store.records import TAG, is_tagged

PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    NoneType: {"type": "null"},
}


def manifest_schema() -> dict[str, Any]:
    """The schema of what stands under `llmtrace` in a saved trace's metadata."""
    known: dict[str, Any] = {}
    root = _of(Manifest, known)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Manifest of a saved trace",
        **root,
        "$defs": dict(sorted(known.items())),
    }


def _of(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; records are entered in `known` by name."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], known)}
    if origin is not None and origin not in (Union, UnionType) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], known)}
    if origin in (Union, UnionType):
        return {"anyOf": [_tagged(each, known) if is_tagged(kind) else _of(each, known) for each in arguments]}
    return _record(kind, known)


def _tagged(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """One of several records, with the tag that says which."""
    if kind is NoneType:
        return PLAIN[NoneType]
    name = f"{kind.__name__} with its tag"
    if name not in known:
        known[name] = {}
        plain = _object(kind, known)
        tag = {TAG: {"const": kind.__name__}}
        known[name] = plain | {"properties": tag | plain["properties"], "required": [TAG, *plain["required"]]}
    return {"$ref": f"#/$defs/{name.replace(' ', '%20')}"}


def _record(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in known:
        known[kind.__name__] = {}
        known[kind.__name__] = _object(kind, known)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _object(kind: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Written files have every key; a reader takes a missing one as its default, if it has one."""
    rows = attrs.fields(attrs.resolve_types(kind))
    return {
        "type": "object",
        "properties": {row.name: _of(row.type, known) for row in rows},
        "required": [row.name for row in rows if row.default is attrs.NOTHING],
        "additionalProperties": False,
    }
