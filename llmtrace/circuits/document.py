"""Motifs as the document that `llmtrace circuit motifs --json` prints."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from llmtrace.circuits.motif import Motif
from llmtrace.circuits.prompts import PromptSet
from llmtrace.circuits.record import HeadMatch, Instance, MotifMatches, Motifs
from llmtrace.documents import number
from llmtrace.schema.sites import Array
from llmtrace.trace import ModelInfo


def motifs_document(found: Motifs) -> dict[str, Any]:
    """Every field of the record; what is undefined is null."""
    return {
        "schema_version": found.schema_version,
        **_model(found.model),
        "prompts": _prompts(found.prompts),
        "seed": found.seed,
        "checked": found.checked,
        "checked_on": None if found.checked_on is None else _prompts(found.checked_on),
        "motifs": [_motif(each) for each in found.found],
    }


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "model": info.source,
        "backend": info.backend,
        "preset": info.preset,
        "weights": info.weights,
        "fingerprint": info.fingerprint,
    }


def _prompts(over: PromptSet) -> dict[str, Any]:
    return {"name": over.name, "about": over.about, "seed": over.seed, "prompts": [list(ids) for ids in over.prompts]}


def _motif(each: MotifMatches) -> dict[str, Any]:
    return {
        "name": each.motif.name,
        **_declared(each.motif),
        "heads": [_head(match) for match in each.heads],
        "instances": [_instance(one) for one in each.instances],
        "false_positive_rate": number(each.false_positives),
        "scores": {role: _map(scores) for role, scores in each.scores.items()},
        "notes": list(each.notes),
    }


def _declared(motif: Motif) -> dict[str, Any]:
    check = motif.check
    return {
        "title": motif.title,
        "paper": motif.paper,
        "where": {role: str(where) for role, where in motif.where.items()},
        "expect": {role: str(expected) for role, expected in motif.expect.items()}
        | {str(edge): f"kappa {edge.expect}" for edge in motif.edges if edge.expect},
        "order": [list(pair) for pair in motif.order],
        "edges": [str(edge) for edge in motif.edges],
        "check": None
        if check is None
        else {"ablate": check.ablate, "metric": check.metric, "effect": str(check.effect)},
    }


def _head(match: HeadMatch) -> dict[str, Any]:
    ablation = match.ablation
    return {
        "role": match.role,
        "node": str(match.node),
        "layer": match.layer,
        "head": match.head,
        "score": number(match.score),
        "interval": None if match.interval is None else list(match.interval),
        "chance": number(match.chance),
        "effect": number(match.effect),
        "effect_size": number(match.size),
        "p": number(match.p),
        "rows": match.rows,
        "prompts": match.prompts,
        "rung": int(match.rung),
        "evidence": match.rung.title,
        "ablation": None if ablation is None else attrs.asdict(ablation) | {"interval": list(ablation.interval)},
    }


def _instance(one: Instance) -> dict[str, Any]:
    return {
        "roles": {role: str(node) for role, node in one.roles},
        "edges": [{"edge": str(edge), "kappa": number(kappa)} for edge, kappa in one.edges],
    }


def _map(scores: Array) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in scores]
