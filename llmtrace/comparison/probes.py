"""What models are compared on. **Asked**: the prompts, and the texts that both tokenizers are asked to read. Where none are given, those of a set
(`prompt_sets`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from llmtrace.comparison.prompt_sets import Probe, prompt_set
from llmtrace.errors import OptionError, PromptError
from llmtrace.model import Model, Prompt
from llmtrace.tokens import Tokenizer
from llmtrace.trace import Trace

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
    probes: tuple[Probe, ...] = ()
    """The built-in ones among the prompts, in order, where they are."""

    def name(self, number: int) -> str:
        """What a prompt is called: a built-in one by its name, another by its number, from 1."""
        return self.probes[number].name if self.probes else str(number + 1)

    def words(self, number: int) -> str:
        """A prompt in words: its text, or its ids."""
        prompt = self.probes[number].text if self.probes else self.prompts[number]
        return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


class RefusedPromptError(PromptError):
    """A prompt that cannot be run; `number` says which, from 0, and `why` is the message without it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"Prompt {number + 1}: {why}")
        self.number, self.why = number, why


def asked(
    reference: Model | None, given: Sequence[Prompt] | None, vocab: int, context: int | None, named: str | None = None
) -> Asked:
    """The given prompts, or those of the built-in set that is named (None: `quick`), cut to the reference's context.

    `vocab` and `context` are the reference's. Raises `PromptError`, and `OptionError` for both, or for a set that there is not.
    """
    probes = prompt_set(named or "quick")
    if named is not None and given is not None:
        raise OptionError("There are prompts, and a set of prompts besides: give one of the two.")
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
        _needs_reader(named, reference)
        return Asked(tuple(ids(vocab, context)))
    read = {probe: _encoded(reference.tokenizer, probe.text) for probe in probes}
    telling = tuple(probe for probe in probes if _tells(read[probe], vocab))
    if telling:
        short = [
            probe.text if context is None or len(read[probe]) <= context else read[probe][:context] for probe in telling
        ]
        return Asked(tuple(short), tuple((at, probe.text) for at, probe in enumerate(telling)), probes=telling)
    _needs_reader(named, reference)
    numbers = ids(vocab, context)
    own = _spelled(reference.tokenizer, numbers[0])
    return Asked(tuple(numbers), tuple((None, text) for text in ([own] if own else [probe.text for probe in probes])))


def _needs_reader(named: str | None, reference: Model | None) -> None:
    """Refuse a set that was asked for by name where its texts cannot be read. Raises `OptionError`."""
    if named is not None:
        whose = "The reference" if reference is None else reference.info.source
        raise OptionError(
            f"{whose} has no tokenizer that reads the texts of the prompt set {named!r}: give prompts of your own, or name no set."
        )


def recorded(traces: Sequence[Trace], given: Sequence[Prompt] | None, named: str | None = None) -> Asked:
    """What saved traces were recorded on. Raises `OptionError` where they are of other tokens, or where a prompt is given besides."""
    tokens = [tuple(token.id for token in trace.tokens) for trace in traces]
    if any(each != tokens[0] for each in tokens):
        raise OptionError("The saved traces are of different tokens: record both with the same prompt or ids.")
    if given is not None or named is not None:
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


def _tells(ids: Sequence[int], vocab: int) -> bool:
    """Whether a text was read as more than one unknown word again and again, and as nothing that the model has not."""
    return len(set(ids)) > VARIED and max(ids) < vocab
