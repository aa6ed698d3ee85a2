"""From the documents that `--json` prints to what the page carries. **Grid**: numbers as base64, so that a long prompt stays small.

A token is carried as text in quotes, as runs of plain text and marks, and as its bytes where its text cannot say them; every other
string with its shapeless characters escaped. So the page's script only ever places finished text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from llmtrace.schema.sites import Array
from llmtrace.view.figures import probability, ranks
from llmtrace.view.visible import escape, named, quoted, runs, shapeless

Document: TypeAlias = Mapping[str, Any]
MATRIX_BYTES = 4 * 1024**2
"""Of one method's matrix in the page: prompts of up to 1447 tokens are whole, longer ones keep the rows of their last positions."""


def grid(values: Any) -> dict[str, Any]:
    """An array, nulls as NaN, as little-endian float32 in base64, with its shape."""
    array = np.asarray(values, dtype=np.float64).astype("<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode("ascii")}


def triangle(matrix: Array, queries: Sequence[int]) -> dict[str, Any]:
    """Rows of a causal matrix [row key], one a query position, each cut after its own position: later keys are 0."""
    rows = [matrix[place, : query + 1] for place, query in enumerate(queries)]
    return {"queries": list(queries), **grid(np.concatenate(rows) if rows else [])}


def last_rows(tokens: int, budget: int) -> list[int]:
    """The longest run of last positions whose rows together hold at most `budget` numbers; at least the last position."""
    first = tokens - 1
    room = budget - tokens
    while first > 0 and room >= first:
        room -= first
        first -= 1
    return list(range(max(first, 0), tokens))


def safe(value: Any) -> Any:
    """A document's strings with their shapeless characters escaped, at any depth; numbers that are not finite become null."""
    if isinstance(value, str):
        return "".join(escape(c) if shapeless(c) else c for c in value)
    if isinstance(value, Mapping):
        return {safe(key): safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [safe(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def token(value: Any) -> dict[str, Any] | None:
    """A token of a document (`{id, text, bytes?}`, or its text alone), ready to be shown."""
    if value is None:
        return None
    if isinstance(value, str):
        return {"text": quoted(value), "runs": runs(value)}
    text, id, raw = value.get("text", ""), value.get("id"), as_bytes(value.get("bytes"))
    if not text and raw is None:
        return {"id": id, "text": f"token {id}", "runs": ["", f"#{id}"]}
    packed = {"id": id, "text": quoted(text), "runs": runs(text, raw)}
    return packed | ({"bytes": raw.hex(" ").upper()} if raw is not None else {})


def as_bytes(value: Any) -> bytes | None:
    """The bytes of a token: hexadecimal digits, a list of numbers, or none."""
    if value is None:
        return None
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value)


def tokens(values: Iterable[Any]) -> list[dict[str, Any] | None]:
    """Several tokens."""
    return [token(value) for value in values]


def facts(document: Document) -> list[list[str]]:
    """What made the numbers, as pairs to print: model, backend, weights, settings."""
    model: Document = document.get("model") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (model.get("versions") or {}).items())
    settings = ", ".join(f"{name} {value}" for name, value in (model.get("settings") or {}).items())
    rows = [
        ["model", PurePath(str(model.get("source", ""))).name],
        ["runtime", " ".join(filter(None, [str(model.get("runtime", "")), f"({versions})" if versions else ""]))],
        ["backend", str(document.get("backend") or model.get("backend", ""))],
        ["weights", str(model.get("weights", ""))],
        ["settings", ": ".join(filter(None, [str(model.get("preset", "")), settings]))],
    ]
    return safe([row for row in rows if row[1]])  # type: ignore[no-any-return]


def influence(document: Document) -> dict[str, Any]:
    """One influence document, for the page."""
    count = len(document["tokens"])
    matrix = document.get("matrix")
    packed = None
    if matrix is not None:
        kept = last_rows(count, MATRIX_BYTES // 4)
        packed = triangle(np.asarray(matrix, dtype=np.float64)[kept[0] :], kept)
    rest = ("method", "contract", "position", "completeness_gap", "parts", "table", "warnings", "notes")
    return {
        **{name: safe(document.get(name)) for name in rest},
        "facts": facts(document),
        "source": safe(str((document.get("model") or {}).get("source", ""))),
        "tokens": tokens(document["tokens"]),
        "target": token(document.get("target")),
        "foil": token(document.get("foil")),
        "predictions": tokens(document.get("predictions") or ()),
        "aims": bool(document.get("aims", True)),
        "standings": _standings(document),
        "scores": grid(document["scores"]),
        "matrix": packed,
        "heads": None if document.get("heads") is None else grid(document["heads"]),
        "maps": _maps(document.get("maps")),
        "layers": None if document.get("layers") is None else grid(document["layers"]),
        "model_notes": safe(list((document.get("model") or {}).get("notes") or ())),
    }


def rank(point: Document) -> str:
    """The target's rank at one point of a lens, or the span of ranks that it shares."""
    alone = point.get("target_rank")
    if alone is None:
        return "–"
    first, last = point.get("target_ranks") or (alone, alone)
    return ranks((first, last))


def _standings(document: Document) -> list[list[str]]:
    """What is predicted at the position and how likely, and the target where it is another token that the method aims at."""
    best, own = document.get("predicted_standing"), document.get("target_standing")
    if not best or not own:
        return []
    target, there = document["target"], document["predictions"][document["position"]]
    rows = [["predicted", f"{named(there['text'], there['id'])} {probability(best['probability'])}"]]
    if document.get("aims", True) and target["id"] != there["id"]:
        odds = f"{probability(own['probability'])}, rank {ranks((own['ranks'][0], own['ranks'][1]))}"
        rows.append(["target", f"{named(target['text'], target['id'])} {odds}"])
    return rows


def _maps(values: Any) -> dict[str, Any] | None:
    """Maps of single heads, [layer head key], unless they are larger than a matrix may be."""
    packed = None if values is None else np.asarray(values, dtype=np.float64)
    return None if packed is None or not packed.size or 4 * packed.size > MATRIX_BYTES else grid(packed)


def lens(document: Document) -> dict[str, Any]:
    """One lens document, for the page."""
    points = [
        {
            "site": safe(point["site"]),
            "rank": point.get("target_rank"),
            "ranks": rank(point),
            "probability": safe(point.get("target_probability")),
            "top": [[token(_named(top)), safe(top["probability"])] for top in point["top"]],
        }
        for point in document["layers"]
    ]
    return {
        "facts": facts(document),
        "tokens": tokens(document.get("tokens") or ()),
        "position": document.get("position"),
        "target": token(document.get("target")),
        "warnings": safe(list(document.get("warnings") or ())),
        "points": points,
    }


def _named(top: Document) -> Any:
    """The token of one row of `top`, whether it stands there as a record or as a text with its id beside it."""
    inner = top["token"]
    return (
        inner
        if isinstance(inner, Mapping) or "id" not in top
        else {"id": top["id"], "text": inner, "bytes": top.get("bytes")}
    )
