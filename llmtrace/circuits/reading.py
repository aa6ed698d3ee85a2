"""Motifs from TOML: the core's own file, or a user's. The language is that of `motif` and `where`; each error names the file, the motif
and the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import evolve

from llmtrace.circuits.motif import Check, Expectation, Motif, RoleEdge
from llmtrace.circuits.where import Where
from llmtrace.errors import CircuitError, LLMTraceError, shown, suggest

KEYS = ("title", "paper", "roles", "where", "expect", "order", "edges", "check")
CHECK_KEYS = ("ablate", "metric", "effect")


@lru_cache(maxsize=1)
def built_in() -> Mapping[str, Motif]:
    """The motifs that LLMTrace brings, by name.

    >>> list(built_in())
    ['previous-token', 'duplicate-token', 'induction', 'first-token', 'self', 'local-window']
    """
    text = (files("llmtrace.circuits") / "motifs.toml").read_text(encoding="utf-8")
    return {motif.name: motif for motif in _motifs(text, "motifs.toml")}


def read_motifs(path: str | Path) -> list[Motif]:
    """The motifs of a TOML file, in its order. Raises `CircuitError` for what cannot be read or says what no motif may."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CircuitError(f"The motif file {path} cannot be read: {error}.") from error
    return _motifs(text, str(path))


def _motifs(text: str, file: str) -> list[Motif]:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CircuitError(f"The motif file {file} is no TOML: {error}.") from error
    tables = data.get("motif")
    if not isinstance(tables, dict) or not tables or set(data) != {"motif"}:
        raise CircuitError(f"The motif file {file} must hold tables [motif.NAME] and nothing else.")
    return [_motif(name, table, f"{file}: motif.{name}") for name, table in tables.items()]


def _motif(name: str, table: Any, at: str) -> Motif:
    rows = _table(table, at, KEYS)
    try:
        roles, where, expect = (_texts(rows, key, at) for key in ("roles", "where", "expect"))
        if strange := [role for role, kind in roles.items() if kind != "head"]:
            raise CircuitError(f"the role {shown(strange[0])} is {shown(roles[strange[0]])}; there is head.")
        if set(roles) != set(where):
            raise CircuitError(f"roles names {_listed(roles)}, and where {_listed(where)}: each role needs both.")
        edges = [RoleEdge.parse(edge) for edge in _list(rows, "edges", at)]
        bounds = {str(edge): text for key, text in expect.items() if "->" in key for edge in [RoleEdge.parse(key)]}
        if unknown := sorted(set(bounds) - set(map(str, edges))):
            raise CircuitError(f"expect names the edge {unknown[0]}, which is not among the edges.")
        return Motif(
            name,
            _text(rows, "title", at) or name,
            _text(rows, "paper", at),
            {role: Where(where[role]) for role in roles},
            {role: Expectation.parse(text) for role, text in expect.items() if "->" not in role},
            _order(_text(rows, "order", at)),
            tuple(
                evolve(edge, expect=Expectation.parse(bounds[str(edge)], kappa=True)) if str(edge) in bounds else edge
                for edge in edges
            ),
            _check(rows.get("check"), at),
        )
    except LLMTraceError as error:
        raise CircuitError(f"{at}: {str(error).removeprefix(at + ': ')}") from error


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(names) or "none"


def _order(text: str) -> tuple[tuple[str, str], ...]:
    """`a < b < c` as pairs of neighbours."""
    roles = [role.strip() for role in text.split("<")] if text else []
    return tuple(pairwise(roles))


def _check(table: Any, at: str) -> Check | None:
    if table is None:
        return None
    rows = _table(table, f"{at}.check", CHECK_KEYS)
    if missing := [key for key in CHECK_KEYS if key not in rows]:
        raise CircuitError(f"check lacks {', '.join(missing)}.")
    metric = _text(rows, "metric", at)
    if metric != "nll":
        raise CircuitError(f"check measures {shown(metric)}; there is nll, the mean loss in nats.")
    return Check(_text(rows, "ablate", at), "nll", Expectation.parse(_text(rows, "effect", at)))


def _table(table: Any, at: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise CircuitError(f"{at} is no table.")
    if unknown := [key for key in table if key not in keys]:
        raise CircuitError(
            f"{at} has the key {shown(unknown[0])}; there are {', '.join(keys)}.{suggest(unknown[0], keys)}"
        )
    return table


def _text(rows: Mapping[str, Any], key: str, at: str) -> str:
    value = rows.get(key, "")
    if not isinstance(value, str):
        raise CircuitError(f"{at}: {key} is {shown(value)}, and must be a text.")
    return value


def _texts(rows: Mapping[str, Any], key: str, at: str) -> dict[str, str]:
    value = rows.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise CircuitError(f'{at}: {key} is {shown(value)}, and must be a table of texts: {{ head = "…" }}.')
    return value


def _list(rows: Mapping[str, Any], key: str, at: str) -> list[str]:
    value = rows.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise CircuitError(f"{at}: {key} is {shown(value)}, and must be a list of texts.")
    return value
