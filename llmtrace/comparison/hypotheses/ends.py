"""The ends: the embedding's factor and rows; the head's factor, cap, matrix and what it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from attrs import evolve

from llmtrace.comparison.case import Case, Hypothesis, scalar_fit
from llmtrace.comparison.hypotheses.tensors import with_weights
from llmtrace.comparison.specs import said
from llmtrace.schema.sites import Array
from llmtrace.spec import Embedding, Unembedding

CAPS = (30.0, 50.0)
"""Of the logits of published models."""


def _embedding(case: Case) -> Iterator[tuple[str, Array]]:
    record = case.step.record
    if not isinstance(record, Embedding):
        return
    root = math.sqrt(case.reference.spec.d_model)
    for scale, words in ((1.0, "1"), (root, f"√d_model = {root:.6g}"), (record.scale**2, "the scale twice")):
        if not math.isclose(scale, record.scale, rel_tol=1e-9):
            changed = evolve(record, scale=scale)
            yield (
                f"embeddings times {words} instead of {said(record.scale)}",
                case.predict(case.with_record(record, changed)),
            )
    if record.norm is None and (factor := scalar_fit(case.found, case.expected)):
        words = f"embeddings times {record.scale * factor:.6g} instead of {said(record.scale)} (fitted)"
        yield words, case.expected * factor
    if record.norm is not None:
        yield "the embedding's norm is missing", case.predict(case.with_record(record, evolve(record, norm=None)))


def _rows(case: Case) -> Iterator[tuple[str, Array]]:
    tokens, vocab = np.asarray(case.captured["tokens"]), case.reference.spec.vocab
    for shift in (1, -1, 2, -2):
        moved = tokens + shift
        if moved.min() >= 0 and moved.max() < vocab:
            yield f"the embedding table is read {shift:+d} rows away", case.predict(put={"tokens": moved})


def _head(case: Case) -> Iterator[tuple[str, Array]]:
    record = case.step.record
    if not isinstance(record, Unembedding):
        return
    for scale in sorted({1.0, 1 / record.scale, record.scale**2} - {record.scale}):
        words = f"logits times {said(scale)} instead of {said(record.scale)}"
        yield words, case.predict(case.with_record(record, evolve(record, scale=scale)))
    if record.softcap is None and not record.bias and (factor := scalar_fit(case.found, case.expected)):
        words = f"logits times {record.scale * factor:.6g} instead of {said(record.scale)} (fitted)"
        yield words, case.expected * factor
    for cap in (None, *CAPS):
        if cap != record.softcap:
            words = f"softcap of the logits {said(cap)} instead of {said(record.softcap)}"
            yield words, case.predict(case.with_record(record, evolve(record, softcap=cap)))


def _matrix(case: Case) -> Iterator[tuple[str, Array]]:
    weights = case.base.weights
    if "embed.W_E" in weights and not case.reference.spec.unembed.tied:
        table = np.asarray(weights["embed.W_E"]).T
        yield (
            "the head is the embedding, as if they were tied",
            case.predict(equations=with_weights(case.base, {"unembed.W_U": table})),
        )
    matrix = np.asarray(weights["unembed.W_U"])
    for shift in (1, -1):
        moved = np.roll(matrix, shift, 1)
        yield (
            f"rows of the vocabulary shifted by {shift:+d}",
            case.predict(equations=with_weights(case.base, {"unembed.W_U": moved})),
        )


def _unnormed(case: Case) -> Iterator[tuple[str, Array]]:
    last = f"blocks.{len(case.reference.spec.blocks) - 1}.resid_post"
    if last in case.captured:
        yield "the final norm is missing", case.predict(put={"ln_final.out": np.asarray(case.captured[last])})


ROWS = (
    Hypothesis("embedding-scale", ("embed",), _embedding),
    Hypothesis("rows-of-the-embedding", ("embed",), _rows),
    Hypothesis("head", ("logits",), _head),
    Hypothesis("matrix-of-the-head", ("logits",), _matrix),
    Hypothesis("final-norm", ("logits",), _unnormed),
)
