"""The page of a saved trace: its attention patterns, recorded or derived, and the list of what it holds."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict

from llmtrace.errors import SignalUnavailableError
from llmtrace.selection import Cut
from llmtrace.trace import Signal, Trace
from llmtrace.view import pack
from llmtrace.view.files import write
from llmtrace.view.html import fill
from llmtrace.view.signals import groups

PATTERN_BYTES = 24 * 1024**2
"""Of all patterns in the page; where they are more, the rows of the last queries are kept and the page says so."""
UNITS = 65534
"""A weight is carried as a whole number of 1/65534; 65535 stands for one that is not finite."""


def page_of_trace(trace: Trace, title: str | None = None) -> str:
    """One page: patterns by layer, head and query where the trace holds or can derive them, and every signal with its origin."""
    notes = []
    wanted = [(layer, site) for layer, site in _pattern_sites(trace) if site in trace]
    queries = _kept_queries(trace, len(wanted))
    if not wanted:
        notes.append("No attention patterns: they were not recorded, and what was does not suffice to derive them.")
    elif not queries:
        wanted = []
        notes.append("No query stands in the patterns of every layer: record the same tokens of each.")
    if wanted and len(queries) < len(_recorded_queries(trace)):
        notes.append(f"The prompt is long: the page holds the patterns of the queries from position {queries[0]} on.")
    layers = []
    for layer, site in wanted:
        try:
            layers.append(_layer(layer, trace[site], queries, len(trace.tokens)))
        except SignalUnavailableError as error:
            notes.append(f"No pattern of layer {layer}: {error}")
    tokens = [{"id": token.id, "text": token.text, "bytes": token.bytes} for token in trace.tokens]
    facts = pack.facts({"model": asdict(trace.model)})
    content: dict[str, Any] = {
        "kind": "trace",
        "facts": [*pack.safe([[kind, ", ".join(what)] for kind, what in trace.changes.items()]), *facts],
        "edits": pack.safe([str(edit) for edit in trace.edits]),
        "source": pack.safe(trace.model.source),
        "warnings": pack.safe(list(trace.model.notes)),
        "tokens": pack.tokens(tokens),
        "queries": queries,
        "units": UNITS,
        "patterns": layers,
        "notes": pack.safe(notes),
        "signals": pack.safe([{**asdict(group), "bytes": f"{group.bytes:,}"} for group in groups(trace)]),
    }
    return fill(
        content,
        title
        or f"{'Edited trace' if trace.edits else 'Trace'} of {len(tokens)} tokens · {Path(trace.model.source).name}",
    )


def save_trace_page(path: str | Path, trace: Trace, title: str | None = None) -> None:
    """Write the page, atomically. Raises `TraceFileError`, and leaves an older file as it was."""
    write(path, page_of_trace(trace, title))


def _pattern_sites(trace: Trace) -> Iterator[tuple[int, str]]:
    for layer, block in enumerate(trace.spec.blocks):
        if block.attention is not None:
            yield layer, f"blocks.{layer}.attn.pattern"


def _indices(axes: tuple[str, ...], cut: Cut | None, axis: str, size: int) -> list[int]:
    """Which heads or queries a pattern holds."""
    kept = None if cut is None else cut.indices[axes.index(axis)]
    return list(range(size)) if kept is None else list(kept)


def _recorded_queries(trace: Trace) -> list[int]:
    """The queries that every pattern holds, recorded or derived, ascending."""
    common = set(range(len(trace.tokens)))
    for _, site in _pattern_sites(trace):
        if site in trace:
            cut = trace.cut(site)
            common &= set(_indices(trace.equations.step(site).axes, cut, "query", len(trace.tokens)))
    return sorted(common)


def _kept_queries(trace: Trace, layers: int) -> list[int]:
    """The last of these whose rows fit into the page."""
    recorded = _recorded_queries(trace)
    heads = max((block.attention.heads for block in trace.spec.blocks if block.attention), default=1)
    budget = PATTERN_BYTES // (2 * heads * max(1, layers))
    kept: list[int] = []
    for query in reversed(recorded):
        budget -= query + 1
        if budget < 0 and kept:
            break
        kept.insert(0, query)
    return kept


def _layer(layer: int, signal: Signal, queries: list[int], tokens: int) -> dict[str, Any]:
    """One layer's patterns: rows of each head, each row cut after its own position."""
    places = _indices(signal.axes, signal.cut, "query", tokens)
    rows = signal.array.astype(np.float64)[:, [places.index(query) for query in queries]]
    units = np.where(np.isfinite(rows), np.round(np.nan_to_num(rows) * UNITS), UNITS + 1).astype("<u2")
    heads = [np.concatenate([row[: query + 1] for row, query in zip(head, queries, strict=True)]) for head in units]
    return {
        "layer": layer,
        "numbers": _indices(signal.axes, signal.cut, "head", len(rows)),
        "provenance": str(signal.provenance),
        "heads": [base64.b64encode(head.tobytes()).decode("ascii") for head in heads],
    }
