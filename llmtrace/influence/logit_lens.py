"""The logit lens: what each point of the residual stream would predict (nostalgebraist 2020, "interpreting GPT: the logit lens").

**Lens** of a stream point x: `softcap(scale · (norm_f(x) W_U + b_U))`, the model's own last steps applied early. At the last point it gives the
logits, and how nearly it does is the record's `gap`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from attrs import frozen

from llmtrace.errors import SchemaViolationError
from llmtrace.influence.method import Task
from llmtrace.influence.readout import Readout
from llmtrace.influence.standing import standing
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.functions import softmax
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.tokens import Tokenizer, token_of
from llmtrace.trace import ModelInfo, Token


@frozen
class Reading:
    """What one point of the stream would predict."""

    site: str
    top: tuple[tuple[Token, float], ...]
    """The most likely tokens with their probabilities, best first; equal ones by id."""
    target_rank: int
    """1 is the most likely token; equally likely ones are in the order of `top`, by id."""
    target_probability: float
    target_ranks: tuple[int, int]
    """The first and the last rank that equally likely tokens share with the target: both are `target_rank` unless there is a tie."""


@frozen
class Lens:
    """The logit lens over all points of the stream, first to last, at one position."""

    model: ModelInfo
    tokens: tuple[Token, ...]
    position: int
    """Whose prediction; counted from the start."""
    target: Token
    layers: tuple[Reading, ...]
    gap: float
    """How far the last reading's logits are from the captured ones, relative: `‖found - logits‖ / ‖logits‖`."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace lens --json` prints: plain lists, numbers, strings, no NaN."""
        from llmtrace.influence.document import lens_document

        return lens_document(self)

    def __repr__(self) -> str:
        """One line a point: its best token with the probability, and the target's rank."""
        from llmtrace.view.figures import probability, ranks

        lines = [f"<Lens at position {self.position}, target {self.target.text or self.target.id!r}>"]
        for reading in self.layers:
            best, chance = reading.top[0]
            lines.append(
                f"{reading.site:24} {probability(chance):>8} {best.text or best.id!r}  target rank {ranks(reading.target_ranks)}"
            )
        return "\n".join(lines)


class LensFold:
    """Holds one stream vector a point."""

    def __init__(self, task: Task) -> None:
        self._task = task
        sites = lens_sites(task.equations)
        self.sites: Collection[str] = sites
        self._points = sites[:-1]
        self._readout = Readout.of(task.equations)
        self._streams: dict[str, Array] = {}
        self._logits: Array = np.zeros(0)

    def layer(self, layer: int, signals: Signals) -> None:
        """Keep the position's vectors."""
        here = (site for site in self._points if site in signals)
        self._streams |= {site: signals[site][self._task.position].astype(np.float64) for site in here}

    def finish(self, ends: Signals) -> None:
        """Keep the position's logits."""
        self._logits = ends["logits"][self._task.position].astype(np.float64)

    @np.errstate(invalid="ignore", over="ignore")  # what is not finite is an error, never a warning
    def lens(self, model: ModelInfo, tokenizer: Tokenizer | None, target: Token, top: int) -> Lens:
        """The record, with the ranks of a target; call after `finish`. Raises `SchemaViolationError` for a point that holds NaN."""
        task = self._task
        found = self._readout.logits(np.stack([self._streams[site] for site in self._points]))
        broken = np.isnan(found).any(-1) | ~np.isfinite(found.max(-1))
        if broken.any():
            raise SchemaViolationError(
                f"What {self._points[int(broken.argmax())]} of {model.source} would predict holds NaN or infinity: the model is broken. "
                "`llmtrace verify` finds where."
            )
        readings = tuple(
            _reading(site, row, target.id, tokenizer, top) for site, row in zip(self._points, found, strict=True)
        )
        gap = distance(found[-1:], self._logits[None])[0]
        return Lens(model, task.tokens, task.position, target, readings, gap)


def lens_sites(equations: Equations) -> tuple[str, ...]:
    """The points of the stream, first to last, and the logits."""
    layers = range(len(equations.spec.blocks))
    points = [f"blocks.{layer}.{point}" for layer in layers for point in ("resid_mid", "resid_post")]
    return (*(site for site in ("blocks.0.resid_pre", *points) if site in equations.steps), "logits")


def _reading(site: str, logits: Array, target: int, tokenizer: Tokenizer | None, top: int) -> Reading:
    probabilities = softmax(logits)
    best = np.argsort(-logits, kind="stable")[:top]
    named = [(token_of(int(id), tokenizer), float(probabilities[id])) for id in best]
    own = standing(logits, target)
    return Reading(site, tuple(named), own.rank, own.probability, own.ranks)
