"""Making a budget: the reference runs once as it is, once with each weight of the candidate's, and once with all of them.

Pieces are run together where the backend can, in batches whose predictions fit into memory; each batch goes through all swaps before the next, so
that no more than one batch of predictions is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from attrs import evolve, frozen

from llmtrace.comparison.budget import Budget, Distance, Swap, Unswapped
from llmtrace.comparison.budget_distance import Held, Tally, distance, held, perplexity, tally
from llmtrace.comparison.budget_text import CONTEXT, Piece, batches, chunks
from llmtrace.comparison.budget_weights import Part, parts
from llmtrace.comparison.budget_words import headline
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.recent import ROOM, Recent
from llmtrace.comparison.sides import Side
from llmtrace.errors import CapabilityError, OptionError, SignalUnavailableError, UnsupportedModelError, without_weights
from llmtrace.model import Model, Prompt
from llmtrace.progress import Progress
from llmtrace.replacing import replacing
from llmtrace.schema.sites import Array
from llmtrace.selection import select

HELD = 256 << 20
"""Bytes of predictions that are held at once: 12 for each token of the vocabulary."""
COARSE = {"float16", "bfloat16"}
NOT_FINITE = "the reference computes numbers with it that are not finite"


@frozen
class Asked:
    """What a budget is made on."""

    text: Prompt | None = None
    """A text, or its token ids; None: the prompts of the comparison."""
    context: int = CONTEXT
    """Tokens of a chunk of the text."""
    chunks: int | None = None
    """So many at most; None: all."""


def prepared(reference: Side, candidates: Sequence[Side], asked: Asked) -> list[Piece]:
    """The chunks of the text, none where there is no text; before anything is run.

    Raises `CapabilityError` where the sides cannot tell what a weight costs, `OptionError` for a text beside a trace, and as `chunks` does.
    """
    if (model := reference.model) is None:
        raise CapabilityError(
            f"A budget puts weights into the reference, and {reference.name} is a saved trace: name the model itself."
        )
    replacing(model.session)
    for side in candidates:
        if not side.equations.weights:
            raise without_weights(f"A budget needs the weights of {side.name}, which cannot be read here")
        if side.model is None and asked.text is not None:
            raise OptionError(f"{side.name} is a saved trace, which has its own prompt: give no text.")
    if asked.text is None:
        return []
    contexts = (side.spec.context for side in (reference, *candidates))
    limit = min((context for context in contexts if context is not None), default=None)
    return chunks(model, asked.text, asked.context, asked.chunks, limit)


def budget(
    reference: Side, candidate: Side, pieces: Sequence[Piece], tensors: Sequence[Tensor], progress: Progress
) -> Budget:
    """What each of a candidate's weights costs; `tensors` are those that both sides have, compared.

    Raises `UnsupportedModelError` where the reference computes no finite logits.
    """
    if (model := reference.model) is None:
        raise ValueError("The reference is a model.")
    split = list(batches(pieces, max(1, HELD // (12 * model.spec.vocab))))
    weights = candidate.equations.weights
    if len(split) > 1:
        candidate = evolve(candidate, equations=evolve(candidate.equations, weights=Recent(weights, ROOM)))
    made = _Made(model, candidate, *parts(reference, candidate, replacing(model.session), tensors), progress)
    for number, batch in enumerate(split):
        made.run(batch, f" of batch {number + 1} of {len(split)}" if len(split) > 1 else "")
    context = None if pieces[0].following is None else len(pieces[0].ids)
    return made.budget(context)


class _Made:
    """A budget in the making."""

    def __init__(
        self, model: Model, candidate: Side, parts: list[Part], refused: list[Unswapped], progress: Progress
    ) -> None:
        self._model, self._candidate, self._progress = model, candidate, progress
        self._parts, self._refused = parts, refused
        self._swapped: dict[tuple[str, ...], list[Tally]] = {part.names: [] for part in parts}
        self._together: list[Tally] = []
        self._itself: list[Tally] | None = []
        self._runtime: list[Tally] | None = []
        self._predictions = self._pieces = 0

    def run(self, batch: Sequence[Piece], which: str) -> None:
        """One batch through all swaps."""
        name = self._model.info.source
        self._progress(f"{name}: as it is{which}")
        plain = logits(self._model, batch)
        if not all(np.isfinite(each).all() for each in plain):
            raise UnsupportedModelError(
                f"{name} computes logits that are not finite: there is nothing to hold predictions to."
            )
        base = [held(each, piece.following) for each, piece in zip(plain, batch, strict=True)]
        self._pieces += len(batch)
        self._predictions += sum(len(each.top) for each in base)
        swapping = tuple(self._parts)  # of which some may turn out not to be possible
        for number, part in enumerate(swapping, 1):
            self._progress(f"{name}: weight {number} of {len(swapping)}{which}, {part.names[0]}")
            self._swap(part, batch, base)
        self._progress(f"{name}: all weights{which}")
        with self._model.replaced({name: array for part in self._parts for name, array in part.weights().items()}):
            together = logits(self._model, batch)
        self._together += [tally(one, other) for one, other in zip(base, together, strict=True)]
        self._progress(f"{self._candidate.name}: as it is{which}")
        self._judge(base, together, self._theirs(batch), [piece.following for piece in batch])

    def _judge(
        self,
        base: Sequence[Held],
        together: Sequence[Array],
        theirs: Sequence[Array],
        following: Sequence[tuple[int, ...] | None],
    ) -> None:
        """The candidate beside the reference, and beside the reference with its weights, where their logits can be compared."""
        alike = all(
            one.logits.shape == other.shape and np.isfinite(other).all()
            for one, other in zip(base, theirs, strict=False)
        )
        if len(theirs) < len(base) or not alike or self._itself is None:
            self._itself = self._runtime = None
            return
        self._itself += [tally(one, other) for one, other in zip(base, theirs, strict=True)]
        if self._runtime is None or not all(np.isfinite(each).all() for each in together):
            self._runtime = None
            return
        swapped = [held(each, after) for each, after in zip(together, following, strict=True)]
        self._runtime += [tally(one, other) for one, other in zip(swapped, theirs, strict=True)]

    def _swap(self, part: Part, batch: Sequence[Piece], base: Sequence[Held]) -> None:
        """One weight; one that cannot be put there is left out from then on."""
        try:
            with self._model.replaced(part.weights()):
                found = logits(self._model, batch)
        except (OptionError, CapabilityError) as error:
            self._parts.remove(part)
            self._refused.append(Unswapped(part.names, str(error)))
            return
        self._swapped[part.names] += [tally(one, other) for one, other in zip(base, found, strict=True)]

    def _theirs(self, batch: Sequence[Piece]) -> list[Array]:
        """The candidate's; none where its trace does not tell."""
        if self._candidate.model is not None:
            return logits(self._candidate.model, batch)
        try:
            return [] if self._candidate.trace is None else [np.asarray(self._candidate.trace["logits"].array)]
        except SignalUnavailableError:
            return []

    def budget(self, context: int | None) -> Budget:
        """What came of it."""
        sound = [part for part in self._parts if all(each.finite for each in self._swapped[part.names])]
        refused = [Unswapped(part.names, NOT_FINITE) for part in self._parts if part not in sound]
        distances = {part.names: distance(self._swapped[part.names]) for part in sound}
        total = sum(each.kl for each in distances.values())
        swaps = _ranked(sound, distances, total)
        together = distance(self._together)
        itself, runtime = (distance(each) if each else None for each in (self._itself, self._runtime))
        return Budget(
            headline(swaps, total, together, itself), self._predictions, self._pieces, context,
            perplexity(self._together), swaps, total, together, itself, runtime, (*self._refused, *refused),
            tuple(_rounding(self._model)),
        )  # fmt: skip


def _rounding(model: Model) -> Iterator[str]:
    """What a coarse type of the reference does to what is put into it."""
    for kind in sorted({offer.precision.storage for offer in model.session.offers.values()} & COARSE):
        yield f"The reference computes in {kind}, so that the candidate's weights are rounded to it."


def _ranked(parts: Sequence[Part], distances: Mapping[tuple[str, ...], Distance], total: float) -> tuple[Swap, ...]:
    """The dearest first; of equals, in dataflow order."""
    found: list[Swap] = []
    seen = 0.0
    for part in sorted(parts, key=lambda part: -distances[part.names].kl):
        cost = distances[part.names]
        seen += cost.kl
        shares = (cost.kl / total, seen / total) if total else (0.0, 0.0)
        found.append(Swap(part.names, part.stored, part.numbers, part.bytes, part.relative_error, cost, *shares))
    return tuple(found)


def logits(model: Model, batch: Sequence[Piece]) -> list[Array]:
    """Those of the predictions that count, [token vocab], of each piece."""
    tokens = None if batch[0].following is None else batch[0].counted  # chunks are of one length
    traces = model.trace_many([piece.ids for piece in batch], capture=select("logits", tokens=tokens), max_bytes=None)
    return [np.asarray(trace["logits"].array) for trace in traces]
