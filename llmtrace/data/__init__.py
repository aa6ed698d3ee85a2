"""What LLMTrace brings along. **Embedded model**: a directory in this package that any backend opens, so that a first look needs no
download; its source name is `builtin:NAME`.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from llmtrace.errors import ModelOpenError, suggest

PREFIX = "builtin:"


@frozen
class Demo:
    """A prompt whose continuation an embedded model is known to give, and why."""

    prompt: str
    answer: str
    """The next token."""
    copied: int
    """Position of the token that is copied."""
    matched: int
    """Position of the earlier token that equals the last one."""


@frozen
class Embedded:
    """One embedded model."""

    name: str
    about: str
    demo: Demo


EMBEDDED: dict[str, Embedded] = {
    "induction": Embedded(
        "induction",
        "two layers and 47,424 weights set by hand: it continues what it has seen before, through a previous-token head (L0H0) "
        "and an induction head (L1H0)",
        Demo("c a f e b o d c a f", "e", copied=4, matched=3),
    )
}
DEMO = EMBEDDED["induction"].demo
DEMO_MODEL = PREFIX + "induction"
DEMO_PROMPT = DEMO.prompt
DEMO_ANSWER = DEMO.answer


def embedded(name: str) -> Path:
    """The directory of an embedded model, by its name with or without `builtin:`. Raises `ModelOpenError` with near names.

    >>> embedded("induction").name
    'induction'
    """
    plain = name.removeprefix(PREFIX)
    if plain not in EMBEDDED:
        raise ModelOpenError(
            f"No embedded model is named {plain!r}; there are {', '.join(EMBEDDED)}.{suggest(plain, EMBEDDED)}"
        )
    return Path(__file__).parent / plain
