"""What models are compared on. **Asked**: the prompts, and the texts that both tokenizers are asked to read. Where none are given: prose, code,
numbers, other scripts, and a repetition for induction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from llmtrace.errors import OptionError, PromptError
from llmtrace.model import Model, Prompt
from llmtrace.tokens import Tokenizer
from llmtrace.trace import Trace

PROBES: tuple[str, ...] = (
    "When Mary and John went to the store, John gave a drink to Mary. When Mary and",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))  # 12\n",
    "On 17 March 1987, 4,096 of 65,536 samples were lost: 6.25 %. Überraschend? 東京 — да, ναι.",
    "one two three four five six seven eight nine ten one two three four five six seven eight nine",
)
IDS = (12, 24, 7)
"""How many ids stand in for them where the models have no tokenizer, or one that reads them as next to nothing."""
VARIED = 4
"""A text that a tokenizer reads as so few different tokens, or fewer, tells little."""
GIVEN, TRACED = "the prompts were given as token ids", "a saved trace holds token ids"
"""Why no text was read: whoever asks knows it, so that it is a note and no part of the verdict's line."""


@frozen
class Asked:
    """What is run, and what is read."""

    prompts: tuple[Prompt, ...]
    """What is run, in order."""
    texts: tuple[tuple[int | None, str], ...] = ()
    """What both tokenizers are asked to read, each with the number of its prompt; None: it is not run."""
    untold: str = ""
    """Why there is no text; empty where there is one, or where a tokenizer is lacking."""


class RefusedPromptError(PromptError):
    """A prompt that cannot be run; `number` says which, from 0, and `why` is the message without it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"Prompt {number + 1}: {why}")
        self.number, self.why = number, why


def asked(reference: Model | None, given: Sequence[Prompt] | None, vocab: int, context: int | None) -> Asked:
    """The given prompts, or the built-in ones; `vocab` and `context` are the reference's. Raises `PromptError`."""
    if isinstance(given, str):
        raise PromptError(f"prompts is a list, and this is one text: give prompts=[{given[:40]!r}].")
    if given is not None:
        prompts = tuple(given)
        if not prompts:
            raise PromptError("There is no prompt to compare on: give at least one.")
        if any(isinstance(each, int) for each in prompts):
            raise PromptError(
                f"prompts is a list of prompts, and this is one of token ids: give prompts=[{list(prompts)[:8]}]."
            )
        texts = tuple((number, each) for number, each in enumerate(prompts) if isinstance(each, str))
        return Asked(prompts, texts, "" if texts else GIVEN)
    if reference is None or reference.tokenizer is None:
        return Asked(tuple(ids(vocab, context)))
    telling = [text for text in PROBES if _telling(reference, text)]
    if telling:
        return Asked(tuple(telling), tuple(enumerate(telling)))
    numbers = ids(vocab, context)
    return Asked(tuple(numbers), tuple((None, text) for text in (*PROBES, _spelled(reference.tokenizer, numbers[0]))))


def recorded(traces: Sequence[Trace], given: Sequence[Prompt] | None) -> Asked:
    """What saved traces were recorded on. Raises `OptionError` where they are of other tokens, or where a prompt is given besides."""
    tokens = [tuple(token.id for token in trace.tokens) for trace in traces]
    if any(each != tokens[0] for each in tokens):
        raise OptionError("The saved traces are of different tokens: record both with the same prompt or ids.")
    if given is not None:
        raise OptionError("A saved trace has its own prompt: give none.")
    return Asked((list(tokens[0]),), untold=TRACED)


def readable(model: Model, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The ids of every prompt, before any is run. Raises `RefusedPromptError`."""
    return list(_readable(model, prompts))


def _readable(model: Model, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    for number, prompt in enumerate(prompts):
        try:
            yield [token.id for token in model.tokens(prompt)]
        except PromptError as error:
            raise RefusedPromptError(number, str(error)) from error


def ids(vocab: int, context: int | None) -> list[list[int]]:
    """Prompts of token ids, spread over the vocabulary."""
    return [[(place * 7919 + 31 * seed) % vocab for place in range(min(n, context or n))] for seed, n in enumerate(IDS)]


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """A text of the vocabulary's own words, for a tokenizer that knows few; without those that it puts in front by itself."""
    words = {id: tokenizer.token(id).text for id in ids}
    added = {other for id, word in words.items() for other in _encoded(tokenizer, word) if other != id}
    return " ".join(word for id, word in words.items() if id not in added and id in _encoded(tokenizer, word))


def _encoded(tokenizer: Tokenizer, word: str) -> list[int]:
    try:
        return tokenizer.encode(word)
    except PromptError:
        return []


def _telling(model: Model, text: str) -> bool:
    """Whether a model's tokenizer reads a text as more than one unknown word again and again."""
    try:
        tokens = model.tokens(text)
    except PromptError:
        return False
    return len({token.id for token in tokens}) > VARIED
