"""Influence and lens as documents and tables. **Document**: plain dictionaries, lists, strings and finite numbers, ready for strict JSON.

What is undefined is `null`, never NaN and never 0. A token that is not valid UTF-8 alone carries its bytes, as a list of numbers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import attrs

from llmtrace.documents import number, token_document
from llmtrace.errors import OptionError
from llmtrace.influence.logit_lens import Lens
from llmtrace.influence.record import HeadScore, Influence
from llmtrace.influence.standing import Standing
from llmtrace.schema.sites import Array
from llmtrace.trace import ModelInfo

if TYPE_CHECKING:
    import pandas as pd


def influence_document(influence: Influence) -> dict[str, Any]:
    """Every field of the record."""
    return {
        "schema_version": influence.schema_version,
        "model": model_document(influence.model),
        "method": influence.method,
        "contract": attrs.asdict(influence.contract),
        "tokens": [token_document(token) for token in influence.tokens],
        "position": influence.position,
        "target": token_document(influence.target),
        "foil": None if influence.foil is None else token_document(influence.foil),
        "scores": numbers(influence.scores),
        "completeness_gap": number(influence.completeness_gap),
        "parts": [{"name": name, "value": number(value)} for name, value in influence.parts],
        "heads": numbers(influence.heads),
        "maps": numbers(influence.maps),
        "layers": numbers(influence.layers),
        "matrix": numbers(influence.matrix),
        "predictions": [token_document(token) for token in influence.predictions],
        "aims": influence.aims,
        "target_standing": standing_document(influence.target_standing),
        "predicted_standing": standing_document(influence.predicted_standing),
        "table": [head_score_document(score) for score in influence.table],
        "warnings": list(influence.warnings),
        "notes": [
            {"name": name, "value": value if isinstance(value, str) else number(value)}
            for name, value in influence.notes
        ],
    }


def lens_document(lens: Lens) -> dict[str, Any]:
    """Every field of the record."""
    return {
        "schema_version": lens.schema_version,
        "model": model_document(lens.model),
        "tokens": [token_document(token) for token in lens.tokens],
        "position": lens.position,
        "target": token_document(lens.target),
        "gap": number(lens.gap),
        "layers": [
            {
                "site": reading.site,
                "top": [{"token": token_document(token), "probability": number(p)} for token, p in reading.top],
                "target_rank": reading.target_rank,
                "target_probability": number(reading.target_probability),
                "target_ranks": list(reading.target_ranks),
            }
            for reading in lens.layers
        ],
    }


def standing_document(standing: Standing | None) -> dict[str, Any] | None:
    """A token's probability, rank and shared ranks; None where they are not known."""
    if standing is None:
        return None
    return {"probability": number(standing.probability), "rank": standing.rank, "ranks": list(standing.ranks)}


def model_document(info: ModelInfo) -> dict[str, Any]:
    """Which model, on which runtime, with which settings."""
    plain = attrs.asdict(info, recurse=False)
    return plain | {"versions": dict(info.versions), "settings": dict(info.settings), "notes": list(info.notes)}


def head_score_document(score: HeadScore) -> dict[str, Any]:
    """One row of the table; `score` and `chance` are null where no row is eligible."""
    return attrs.asdict(score) | {"score": number(score.score), "chance": number(score.chance)}


def numbers(array: Array | None) -> Any:
    """Nested lists of `number`s, or None where there is no array."""
    if array is None:
        return None
    return [number(value) for value in array.tolist()] if array.ndim == 1 else [numbers(row) for row in array]


def dataframe(influence: Influence, library: Literal["pandas", "polars"] = "pandas") -> pd.DataFrame:
    """One row a source token: position, id, text, score. Raises `OptionError` where the library is not installed."""
    if library not in ("pandas", "polars"):
        raise OptionError(f"There are tables of pandas and of polars, not of {library!r}.")
    try:
        frames = import_module(library)
    except ImportError as error:
        raise OptionError(
            f"A table of {library} needs {library}, which is not installed: pip install {library}."
        ) from error
    tokens = influence.tokens
    columns = {
        "position": list(range(len(tokens))),
        "id": [token.id for token in tokens],
        "text": [token.text for token in tokens],
        "score": influence.scores.tolist(),
    }
    return frames.DataFrame(columns)
