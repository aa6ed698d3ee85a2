"""What a method's answer must be before it is shown. **Later**: source tokens after the position, which cannot matter to a causal model."""

from __future__ import annotations

from numbers import Real

import numpy as np

from llmtrace.errors import PluginError, SchemaViolationError
from llmtrace.influence.method import Answer, Method, Task
from llmtrace.influence.record import HeadScore
from llmtrace.schema.sites import Array

ANY = "any"


def check_answer(who: str, method: Method, task: Task, answer: object) -> Answer:
    """The answer, if it is one. `who` names the method, to begin a sentence with.

    Raises `PluginError` for what is no `Answer` or has a field of another type or shape than `Influence` says, `SchemaViolationError` for
    scores that are not finite, and for what is credited to later tokens: then the method is broken, or the capture.
    """
    if not isinstance(answer, Answer):
        raise PluginError(
            f"{who} failed in answer: it returned {type(answer).__name__}, which is no `Answer`. That is a fault of the method: report it "
            "to its author."
        )
    if wrong := _fault(method, task, answer):
        raise PluginError(f"{who} answered with {wrong}. That is a fault of the method: report it to its author.")
    if wrong := _impossible(task, answer):
        raise SchemaViolationError(
            f"{who} answered with {wrong}: the capture is at fault (`llmtrace verify` finds where), or the method."
        )
    return answer


def _fault(method: Method, task: Task, answer: Answer) -> str:
    """What has another type or shape than it must have."""
    tokens, blocks = len(task.tokens), len(task.equations.spec.blocks)
    shapes: dict[str, tuple[int | str, ...]] = {
        "scores": (tokens,),
        "matrix": (tokens, tokens),
        "heads": (blocks, ANY),
        "maps": (blocks, ANY, tokens),
        "layers": (blocks, tokens),
    }
    arrays = (_misshapen(name, getattr(answer, name), shape) for name, shape in shapes.items())
    return next(filter(None, arrays), "") or _gap(method, answer.completeness_gap) or _words(answer)


def _misshapen(name: str, array: object, shape: tuple[int | str, ...]) -> str:
    if array is None and name != "scores":
        return ""
    if not isinstance(array, np.ndarray):
        return f"`{name}` that is {type(array).__name__} and no NumPy array"
    if array.dtype.kind not in "fiu":
        return f"`{name}` of type {array.dtype.name}, which holds no real numbers"
    if len(array.shape) != len(shape) or any(
        want not in (ANY, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        return f"`{name}` of shape {list(array.shape)} where [{', '.join(map(str, shape))}] was due"
    return ""


def _gap(method: Method, gap: object) -> str:
    if gap is not None and not isinstance(gap, Real):
        return f"`completeness_gap` {gap!r}, which is no number"
    if gap is not None and method.completeness is None:
        return f"`completeness_gap` {gap!r}, though its row claims no identity (`completeness`)"
    return ""


def _words(answer: Answer) -> str:
    """What is wrong with parts, notes, warnings or the table, whose types are what a stranger made them."""
    kinds: dict[str, tuple[object, tuple[type, ...]]] = {
        "parts": (answer.parts, (Real,)),
        "notes": (answer.notes, (Real, str)),
    }
    for name, (pairs, values) in kinds.items():
        good = isinstance(pairs, tuple) and all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], values)
            for pair in pairs
        )
        if not good:
            return f"`{name}` that are no tuple of pairs (name, number{' or text' if str in values else ''})"
    lists: dict[str, tuple[object, type]] = {"warnings": (answer.warnings, str), "table": (answer.table, HeadScore)}
    for name, (items, kind) in lists.items():
        if not (isinstance(items, tuple) and all(isinstance(item, kind) for item in items)):
            return f"`{name}` that are no tuple of {'texts' if kind is str else kind.__name__}"
    return ""


def _impossible(task: Task, answer: Answer) -> str:
    """What is no score, or is credited to later tokens."""
    if not np.isfinite(answer.scores).all():
        return "`scores` that hold NaN or infinite values"
    for name in ("scores", "maps", "layers"):
        array: Array | None = getattr(answer, name)
        if array is not None and np.nan_to_num(array[..., task.position + 1 :]).any():
            return f"`{name}` that are not 0 after position {task.position}"
    if answer.matrix is not None and np.nan_to_num(np.triu(answer.matrix, 1)).any():
        return "`matrix` that is not 0 after each row's position"
    return ""
