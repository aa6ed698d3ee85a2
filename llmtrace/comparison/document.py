"""A comparison as the document that `llmtrace compare --json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from llmtrace.comparison.record import Candidate, Comparison
from llmtrace.documents import number, token_document
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.trace import ModelInfo, Token

if TYPE_CHECKING:
    from llmtrace.comparison.weights_only import WeightComparison


def document(comparison: Comparison) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and finite numbers."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.verdict,
        "passed": comparison.passed,
        "reference": _model(comparison.reference),
        "prompts": list(comparison.prompts),
        "candidates": [_candidate(each) for each in comparison.candidates],
        "notes": list(comparison.notes),
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
        "flips": [_plain(each) for each in candidate.flips],
        "nearer": [_plain(each) for each in candidate.nearer],
        "resolution": number(candidate.resolution),
        "notes": list(candidate.notes),
    }


def _model(info: ModelInfo) -> dict[str, Any]:
    return {"model": info.source, "backend": info.backend, "preset": info.preset, "weights": info.weights}


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields; what is not finite is null."""
    return {field.name: _value(getattr(record, field.name)) for field in attrs.fields(type(record))}


def _value(value: Any) -> Any:
    if isinstance(value, Token):
        return token_document(value)
    if attrs.has(type(value)):
        return _plain(value)
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    return number(value) if isinstance(value, float) else value
