"""Runs methods over one prompt. **Bare pass**: a run that asks for logits only, to learn what is predicted where.

Methods, and the lens, share one further pass over the layers. The bare pass is made only for a method that must know beforehand what
it aims at, and no target was named, or what is predicted at every position; for all else the one pass tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import SupportsIndex

import numpy as np
from attrs import evolve

from llmtrace.errors import PromptError
from llmtrace.influence.calling import Called, checked
from llmtrace.influence.fitness import check_ability, check_foil, check_top
from llmtrace.influence.logit_lens import Lens, LensFold
from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.predicted import Predicted
from llmtrace.influence.record import Influence
from llmtrace.model import Model, Prompt
from llmtrace.plugins import plugins
from llmtrace.recording import Fold
from llmtrace.tokens import one_token
from llmtrace.trace import Token

ABSORBED = 0.9
"""A share of all influence from which one first or delimiter position is said to have absorbed it."""


def influence(
    model: Model,
    prompt: Prompt,
    methods: Sequence[str | Method] = ("alti",),
    position: int = -1,
    target: str | int | None = None,
    foil: str | int | None = None,
) -> list[Influence]:
    """How strongly the prediction at `position` depends on each source token, by each of several methods in one pass.

    `target` is an exact token string or id (None: the predicted token), `foil` another one whose logit is subtracted. Both are for
    methods that aim; the others answer the same whatever they are, and a foil that no method takes is refused. A method is named, or
    given as its row. Raises `UnknownMethodError`, `PluginError` for what a method does wrong, `PromptError` for a position, target or foil that cannot be used, `CapabilityError` where a method reads
    weights and the backend does not, `UnsupportedModelError` where a method does not speak about such a model, and
    `SignalUnavailableError`.
    """
    return _run(model, _rows(methods), prompt, position, target, foil, None)[0]


def lens(model: Model, prompt: Prompt, position: int = -1, target: str | int | None = None, top: int = 5) -> Lens:
    """The logit lens: the `top` tokens that each point of the residual stream would predict. Raises as `influence` does."""
    return _with_lens(_run(model, (), prompt, position, target, None, top))[1]


def picture(
    model: Model,
    prompt: Prompt,
    methods: Sequence[str | Method] = ("alti",),
    position: int = -1,
    target: str | int | None = None,
    foil: str | int | None = None,
    top: int = 5,
) -> tuple[list[Influence], Lens]:
    """Several methods and the logit lens in one pass: what a viewer shows. Raises as `influence` does."""
    return _with_lens(_run(model, _rows(methods), prompt, position, target, foil, top))


def _rows(methods: Sequence[str | Method]) -> list[Method]:
    return [plugins().method(each) if isinstance(each, str) else checked(each) for each in methods]


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
    if foil is not None:
        check_foil(methods)
    for method in methods:
        check_ability(model, method)
    if top is not None:
        check_top(model, top)
    tokens = model.tokens(prompt)
    ids = [token.id for token in tokens]
    place = _place(position, len(tokens))
    wanted = None if target is None else one_token(target, model.tokenizer, model.spec.predicted)
    other = None if foil is None else one_token(foil, model.tokenizer, model.spec.predicted)
    predicted = Predicted(model, place)
    early = any(method.predictions or (method.aims and wanted is None) for method in methods)
    if early:
        model.fold(ids, [predicted])
    aim = predicted.tokens[place] if early and wanted is None else wanted
    if other is not None and aim is not None and other.id == aim.id:
        raise PromptError(
            f"Target and foil are both token {aim.id} ({aim.text!r}): their difference is 0. Name another foil."
        )
    aimed = Task(model.equations, tokens, place, aim, other, predicted.tokens)
    aimless = evolve(aimed, target=None, foil=None)
    tasks = [aimed if method.aims else aimless for method in methods]
    folds = [Called(method, task, plugins()) for method, task in zip(methods, tasks, strict=True)]
    reading = None if top is None else LensFold(aimless)
    together: list[Fold] = [*folds, *([reading] if reading else []), *([] if early else [predicted])]
    model.fold(ids, together)
    answers = [
        _influence(model, method, task, fold, predicted, wanted)
        for method, task, fold in zip(methods, tasks, folds, strict=True)
    ]
    if reading is None or top is None:
        return answers, None
    return answers, reading.lens(model.info, model.tokenizer, wanted or predicted.tokens[place], top)


@np.errstate(invalid="ignore", over="ignore")  # what is not finite is an error or a note, never a warning
def _influence(
    model: Model, method: Method, task: Task, fold: Called, predicted: Predicted, named: Token | None
) -> Influence:
    answer = fold.answer()
    share, absorbing = _absorbed(answer, task)
    best = predicted.tokens[task.position]
    target = named or best
    unused: tuple[tuple[str, float | str], ...] = ()
    if named is not None and not method.aims:
        unused = (("the named target", "enters no score: this method gives the same for every token"),)
    return Influence(
        model=model.info, method=method.name, contract=method.contract, tokens=task.tokens, position=task.position, target=target,
        foil=task.foil, scores=answer.scores, completeness_gap=answer.completeness_gap, matrix=answer.matrix, parts=answer.parts,
        heads=answer.heads, maps=answer.maps, layers=answer.layers, table=answer.table, warnings=answer.warnings + absorbing + _mistaken(method, target, best),
        notes=share + answer.notes + unused, predictions=predicted.tokens, aims=method.aims,
        target_standing=predicted.standing(target), predicted_standing=predicted.standing(best),
    )  # fmt: skip


def _mistaken(method: Method, target: Token, predicted: Token) -> tuple[str, ...]:
    """A warning where the target reads like the predicted token but is another: `Paris` for ` Paris`."""
    plain, best = (token.text.strip().casefold() for token in (target, predicted))
    if not method.aims or target.id == predicted.id or not plain or plain != best:
        return ()
    return (f"The target {target.text!r} is not the predicted token {predicted.text!r}: they are different tokens.",)


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
