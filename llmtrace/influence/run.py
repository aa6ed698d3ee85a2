"""Runs methods over one prompt. **Bare pass**: a run that asks for logits only, to learn what is predicted where.

Methods, and the lens, share one further pass over the layers; the bare pass is made only where a target is to be found or a method
must know the predictions beforehand.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import index
from typing import SupportsIndex

import numpy as np

from llmtrace.errors import CapabilityError, OptionError, PromptError, SchemaViolationError
from llmtrace.influence.logit_lens import Lens, LensFold
from llmtrace.influence.method import Answer, InfluenceFold, Method, Task
from llmtrace.influence.record import Influence
from llmtrace.model import Model, Prompt
from llmtrace.plugins import plugins
from llmtrace.protocol import SupportsWeights
from llmtrace.recording import Fold
from llmtrace.schema.evaluate import Signals
from llmtrace.tokens import one_token, token_of
from llmtrace.trace import Token

ABSORBED = 0.9
"""A share of all influence from which one first or delimiter position is said to have absorbed it."""


def influence(
    model: Model,
    prompt: Prompt,
    methods: Sequence[str] = ("alti",),
    position: int = -1,
    target: str | int | None = None,
    foil: str | int | None = None,
) -> list[Influence]:
    """How strongly the prediction at `position` depends on each source token, by each of several methods in one pass.

    `target` is an exact token string or id (None: the predicted token), `foil` another one whose logit is subtracted. Raises
    `UnknownMethodError`, `PromptError` for a position, target or foil that cannot be used, `CapabilityError` where a method reads
    weights and the backend does not, `UnsupportedModelError` where a method does not speak about such a model, and
    `SignalUnavailableError`.
    """
    rows = [plugins().method(name) for name in methods]
    return _run(model, rows, prompt, position, target, foil, None)[0]


def lens(model: Model, prompt: Prompt, position: int = -1, target: str | int | None = None, top: int = 5) -> Lens:
    """The logit lens: the `top` tokens that each point of the residual stream would predict. Raises as `influence` does."""
    return _with_lens(_run(model, (), prompt, position, target, None, top))[1]


def picture(
    model: Model,
    prompt: Prompt,
    methods: Sequence[str] = ("alti",),
    position: int = -1,
    target: str | int | None = None,
    foil: str | int | None = None,
    top: int = 5,
) -> tuple[list[Influence], Lens]:
    """Several methods and the logit lens in one pass: what a viewer shows. Raises as `influence` does."""
    rows = [plugins().method(name) for name in methods]
    return _with_lens(_run(model, rows, prompt, position, target, foil, top))


def _with_lens(found: tuple[list[Influence], Lens | None]) -> tuple[list[Influence], Lens]:
    if found[1] is None:
        raise RuntimeError("no lens was asked for")
    return found[0], found[1]


def _run(
    model: Model,
    methods: Sequence[Method],
    prompt: Prompt,
    position: int,
    target: str | int | None,
    foil: str | int | None,
    top: int | None,
) -> tuple[list[Influence], Lens | None]:
    for method in methods:
        _check_ability(model, method)
    if top is not None:
        _check_top(model, top)
    tokens = model.tokens(prompt)
    ids = [token.id for token in tokens]
    place = _place(position, len(tokens))
    wanted = None if target is None else one_token(target, model.tokenizer, model.spec.vocab)
    other = None if foil is None else one_token(foil, model.tokenizer, model.spec.vocab)
    predicted = Predicted(model)
    early = wanted is None or any(method.predictions for method in methods)
    if early:
        model.fold(ids, [predicted])
    aim = predicted.tokens[place] if wanted is None else wanted
    if other is not None and other.id == aim.id:
        raise PromptError(
            f"Target and foil are both token {aim.id} ({aim.text!r}): their difference is 0. Name another foil."
        )
    task = Task(model.equations, tokens, place, aim, other, predicted.tokens)
    folds = [method.fold(task) for method in methods]
    reading = None if top is None else LensFold(task)
    together: list[Fold] = [*folds, *([reading] if reading else []), *([] if early else [predicted])]
    model.fold(ids, together)
    answers = [_influence(model, method, task, fold, predicted) for method, fold in zip(methods, folds, strict=True)]
    return answers, reading.lens(model.info, model.tokenizer, top) if reading and top is not None else None


def _influence(model: Model, method: Method, task: Task, fold: InfluenceFold, predicted: Predicted) -> Influence:
    answer = fold.answer()
    if answer.scores.shape != (len(task.tokens),) or not np.isfinite(answer.scores).all():
        raise SchemaViolationError(
            f"The method {method.name} answered with scores of shape {list(answer.scores.shape)} or with NaN or infinite values for a "
            f"prompt of {len(task.tokens)} tokens: the capture holds such values (`llmtrace verify` finds where), or the method is broken."
        )
    share, absorbing = _absorbed(answer, task)
    return Influence(
        model=model.info, method=method.name, contract=method.contract, tokens=task.tokens, position=task.position, target=task.target,
        foil=task.foil, scores=answer.scores, completeness_gap=answer.completeness_gap, matrix=answer.matrix, parts=answer.parts,
        heads=answer.heads, maps=answer.maps, layers=answer.layers, table=answer.table, warnings=answer.warnings + absorbing,
        notes=share + answer.notes, predictions=predicted.tokens,
    )  # fmt: skip


def _absorbed(answer: Answer, task: Task) -> tuple[tuple[tuple[str, float | str], ...], tuple[str, ...]]:
    """The share of the first position, and a warning where one first or delimiter position took nearly all."""
    sizes = np.abs(answer.scores)
    total = float(sizes.sum())
    if not total:
        return (), ()
    shares = sizes / total
    most = int(shares.argmax())
    warning: tuple[str, ...] = ()
    if task.position > 0 and shares[most] > ABSORBED and (most == 0 or _delimiter(task.tokens[most])):
        kind = "the first position" if most == 0 else f"the delimiter {task.tokens[most].text!r} at position {most}"
        warning = (
            f"{shares[most]:.1%} of the influence stands on {kind}: an attention sink, which says little about the prediction.",
        )
    return (("share of the first position", float(shares[0])),), warning


def _delimiter(token: Token) -> bool:
    """Punctuation, blanks, line breaks: a token with text that has no letter or digit."""
    return bool(token.text) and not any(character.isalnum() for character in token.text)


def _place(position: object, tokens: int) -> int:
    if not isinstance(position, SupportsIndex):
        raise PromptError(f"A position is a whole number, not {position!r}.")
    position = index(position)
    if not -tokens <= position < tokens:
        raise PromptError(
            f"Position {position} is out of range: the prompt has {tokens} tokens (0 … {tokens - 1}, or -1 … {-tokens})."
        )
    return position % tokens


def _check_ability(model: Model, method: Method) -> None:
    if "W" in method.needs.split() and not isinstance(model.session, SupportsWeights):
        raise CapabilityError(
            f"The method {method.name} reads weights, and the backend {model.info.backend} does not hand them out: open the model with a "
            f"backend that does (--backend), or use a method that needs a trace only (rollout, attention)."
        )


def _check_top(model: Model, top: int) -> None:
    if not isinstance(model.session, SupportsWeights):
        raise CapabilityError(
            f"The logit lens reads weights, and the backend {model.info.backend} does not hand them out: open the model with a backend "
            f"that does (--backend)."
        )
    if not 1 <= top <= model.spec.vocab:
        raise OptionError(f"The lens shows between 1 and {model.spec.vocab} tokens (the vocabulary), not {top}.")


class Predicted:
    """A fold that keeps the most likely next token at every position; equal logits by id."""

    sites: Collection[str] = ("logits",)

    def __init__(self, model: Model) -> None:
        self._model = model
        self.tokens: tuple[Token, ...] = ()

    def layer(self, layer: int, signals: Signals) -> None:
        """Nothing within a layer predicts."""

    def finish(self, ends: Signals) -> None:
        """Raises `SchemaViolationError` for logits that hold NaN."""
        logits = ends["logits"]
        if np.isnan(logits).any():
            row = int(np.isnan(logits).any(-1).argmax())
            raise SchemaViolationError(
                f"The logits of {self._model.info.source} hold NaN from position {row} on: the model is broken."
            )
        self.tokens = tuple(token_of(int(id), self._model.tokenizer) for id in logits.argmax(-1))
