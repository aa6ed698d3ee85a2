"""What motifs are scored on. **Prompt set**: token ids, prompt by prompt, and in each the rows that it *scores*: those whose next token
the metric of a check is about.

The built-in set repeats random tokens: nothing but the repetition tells what comes next, so that a head that helps there copies
(Olsson et al. 2022, arXiv 2209.11895, who define induction heads on such).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from llmtrace.errors import CircuitError, PromptError
from llmtrace.model import Model, Prompt
from llmtrace.tokens import in_front

PROMPTS, PERIOD = 16, 32
"""How many prompts the built-in set has, and how many tokens are repeated in each."""
SHORTEST = 4
"""Fewer different tokens than this cannot be told apart from chance."""
MARK = re.compile(r"<.*>|\[/?[A-Z_]{2,}\]", re.DOTALL)
"""What control tokens look like: `<|im_start|>`, `[INST]`. By their text, so that every runtime of a model draws the same prompts."""
TRIES = 64
"""Random ids looked at for each token that is wanted: most of a vocabulary is ordinary."""


@frozen
class PromptSet:
    """Prompts to score motifs on. Raises `PromptError` for none, and for a scored row that has no next token."""

    name: str
    """`repeated`, or whatever its maker calls it."""
    about: str
    """What it holds, in words."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids."""
    scored: tuple[tuple[int, ...], ...]
    """Of each prompt, the rows whose next token a check's metric is about."""
    seed: int | None = None
    """Of the generator that drew it; None where nothing was drawn."""

    def __attrs_post_init__(self) -> None:
        sound = len(self.prompts) == len(self.scored) > 0
        if not sound or any(
            not 0 <= row < len(ids) - 1 for ids, rows in zip(self.prompts, self.scored, strict=True) for row in rows
        ):
            raise PromptError(
                "A prompt set has a prompt or more, and for each the rows that it scores, all before its last token."
            )


def repeated(model: Model, *, seed: int = 0, prompts: int = PROMPTS, period: int = PERIOD) -> PromptSet:
    """Random tokens of the model's vocabulary, repeated once: `<bos> p p`, with no token twice in p.

    A vocabulary or a context that is too small shortens p. The scored rows predict the tokens of the second p, but for its first,
    which nothing announces. Raises `CircuitError` where fewer than four tokens can be repeated. The same seed gives the same ids.
    """
    random = np.random.default_rng(seed)
    front = in_front(model.tokenizer)
    room = period if model.spec.context is None else min(period, (model.spec.context - len(front)) // 2)
    found, scored = [], []
    for _ in range(prompts):
        drawn = _drawn(model, random, room)
        start = len(front) + len(drawn)
        found.append((*front, *drawn, *drawn))
        scored.append(tuple(range(start, start + len(drawn) - 1)))
    length = len(scored[0]) + 1
    about = f"{prompts} prompts of {length} random tokens, repeated once" + (" after <bos>" if front else "")
    return PromptSet("repeated", about, tuple(found), tuple(scored), seed)


def texts(model: Model, given: Sequence[Prompt], name: str = "given") -> PromptSet:
    """Prompts of one's own; every row that has a next token is scored. Raises `PromptError` for one that cannot be used."""
    if isinstance(given, str) or not len(given):
        raise PromptError('Motifs are scored on a list of prompts: give at least one, as ["…"].')
    ids = [tuple(token.id for token in model.tokens(prompt)) for prompt in given]
    about = "1 given prompt" if len(ids) == 1 else f"{len(ids)} given prompts"
    return PromptSet(name, about, tuple(ids), tuple(tuple(range(len(each) - 1)) for each in ids))


def _drawn(model: Model, random: np.random.Generator, count: int) -> list[int]:
    """Different ordinary tokens, as many as there are up to `count`."""
    chosen: dict[int, None] = {}
    for id in random.permutation(model.spec.vocab)[: TRIES * max(count, 1)]:
        if len(chosen) == count:
            break
        if _ordinary(model, int(id)):
            chosen[int(id)] = None
    if len(chosen) < SHORTEST:
        raise CircuitError(
            f"{model.info.source} has {len(chosen)} ordinary tokens that can be repeated within its context, and {SHORTEST} are needed: "
            "give prompts of your own."
        )
    return list(chosen)


def _ordinary(model: Model, id: int) -> bool:
    """Whether a token is a piece of text: no control token, no lone byte, nothing that tells the model what to do."""
    if model.tokenizer is None:
        return True
    token = model.tokenizer.token(id)
    return bool(token.text.strip()) and token.bytes is None and not MARK.fullmatch(token.text)
