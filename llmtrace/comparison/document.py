"""A comparison as the document that `llmtrace compare --json` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from llmtrace.comparison.budget import Budget
from llmtrace.comparison.by_token import TokenErrors, TokenNorms, WorstToken
from llmtrace.comparison.mechanisms import Mechanisms
from llmtrace.comparison.record import Candidate, Comparison
from llmtrace.documents import number, token_document
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.trace import ModelInfo, Token

if TYPE_CHECKING:
    from llmtrace.comparison.weights_only import WeightComparison

BY_TOKEN = (WorstToken, TokenErrors, TokenNorms)
"""Records that hold a number for each of many tokens: written with four digits, so that a long prompt stays small."""


def document(comparison: Comparison) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and finite numbers."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.verdict,
        "passed": comparison.passed,
        "reference": _model(comparison.reference),
        "prompts": [_plain(each) for each in comparison.prompts],
        "candidates": [_candidate(each) for each in comparison.candidates],
        "notes": list(comparison.notes),
        "norms": [_plain(each) for each in comparison.norms],
    }


def tensors_document(comparison: WeightComparison) -> dict[str, Any]:
    """The same of weights alone."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.verdict,
        "passed": comparison.passed,
        "reference": _model(comparison.reference),
        "prompts": [],
        "notes": list(comparison.notes),
        "norms": [],
        "candidates": [
            {
                **_model(each.model),
                "verdict": each.verdict,
                "passed": each.passed,
                "headline": each.headline,
                "missing": list(each.missing),
                "spec": [_plain(one) for one in each.spec],
                "tensors": [_plain(one) for one in each.tensors],
                "notes": list(each.notes),
            }
            for each in comparison.candidates
        ],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    first = candidate.first_divergence
    return {
        **_model(candidate.model),
        "verdict": candidate.verdict,
        "passed": candidate.passed,
        "shortfall": candidate.shortfall,
        "headline": candidate.headline,
        "tokens": [_plain(each) for each in candidate.tokens],
        "tokens_not_compared": candidate.tokens_not_compared,
        "spec": [_plain(each) for each in candidate.spec],
        "first_divergence": None if first is None else _plain(first),
        "divergences": [_plain(each) for each in candidate.divergences],
        "sites": [_plain(each) for each in candidate.sites],
        "tensors": [_plain(each) for each in candidate.tensors],
        "outputs": [_plain(each) for each in candidate.outputs],
        "by_prompt": [_plain(each) for each in candidate.by_prompt],
        "spread": [_plain(each) for each in candidate.spread],
        "by_token": [_plain(each) for each in candidate.by_token],
        "flips": [_plain(each) for each in candidate.flips],
        "nearer": [_plain(each) for each in candidate.nearer],
        "resolution": number(candidate.resolution),
        "notes": list(candidate.notes),
        "budget": None if candidate.budget is None else _budget(candidate.budget),
        "mechanisms": None if candidate.mechanisms is None else _mechanisms(candidate.mechanisms),
    }


def _budget(budget: Budget) -> dict[str, Any]:
    """With what follows from its fields."""
    swaps = [{**_plain(each), "kl_per_mebibyte": number(each.kl_per_mebibyte)} for each in budget.swaps]
    follows = {name: number(getattr(budget, name)) for name in ("excess", "relative_excess", "rest")}
    return {**_plain(budget), "swaps": swaps, **follows}


def _mechanisms(found: Mechanisms) -> dict[str, Any]:
    return {**_plain(found), "flagged": found.flagged, "words": found.words}


def _model(info: ModelInfo) -> dict[str, Any]:
    return {"model": info.source, "backend": info.backend, "preset": info.preset, "weights": info.weights}


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields; what is not finite is null."""
    as_number = _short if isinstance(record, BY_TOKEN) else number
    return {field.name: _value(getattr(record, field.name), as_number) for field in attrs.fields(type(record))}


def _value(value: Any, as_number: Callable[[float], float | None]) -> Any:
    if isinstance(value, Token):
        return token_document(value)
    if attrs.has(type(value)):
        return _plain(value)
    if isinstance(value, tuple):
        return [_value(each, as_number) for each in value]
    return as_number(value) if isinstance(value, float) else value


def _short(value: float) -> float | None:
    return number(float(f"{value:.3e}"))
