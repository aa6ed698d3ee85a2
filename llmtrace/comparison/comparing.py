"""One model on two runtimes, formats or precisions: the tokens, then each site, then why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from attrs import evolve

from llmtrace.comparison import budgeting
from llmtrace.comparison.budget_text import CONTEXT, Piece
from llmtrace.comparison.case import Hypothesis
from llmtrace.comparison.held_to import held_to, in_dataflow_order
from llmtrace.comparison.probes import asked, recorded
from llmtrace.comparison.reasons import Reasons
from llmtrace.comparison.record import Comparison, RunPrompt
from llmtrace.comparison.run import Run
from llmtrace.comparison.running import runs_of
from llmtrace.comparison.sides import Given, Side, check, named, opened
from llmtrace.comparison.sizes import check_same, check_vocabulary
from llmtrace.errors import OptionError
from llmtrace.model import Prompt
from llmtrace.progress import Progress, nothing_said
from llmtrace.protocol import Preset
from llmtrace.selection import DEFAULT_MAX_BYTES
from llmtrace.settings import Options
from llmtrace.trace import Token


def compare(
    reference: Given,
    *candidates: Given,
    prompts: Sequence[Prompt] | None = None,
    prompt_set: str | None = None,
    preset: Preset = "shipped",
    reference_preset: Preset | None = None,
    backends: Sequence[str | None] = (),
    options: Sequence[Options | None] = (),
    hypotheses: Sequence[Hypothesis] | None = None,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    budget: bool = False,
    text: Prompt | None = None,
    context: int = CONTEXT,
    chunks: int | None = None,
    mechanisms: bool = False,
    progress: Progress = nothing_said,
) -> Comparison:
    """Hold candidates to a reference: where does each stop being the same model, and why?

    A side is an open model, a saved trace, or the name of either. `prompts` are texts or lists of token ids (None: the built-in set that
    `prompt_set` names, `quick` or `full`), and numbers are compared on the reference's ids. `preset`, `reference_preset` (None: as
    `preset`), and `backends` and `options`, one a side, the reference's first, are for the sides that are opened here. `progress` is called
    with what is being done, in words, while it takes time.
    A candidate's signals are held to the reference's equations and weights, applied to the candidate's own inputs, so a fault shows where
    it is and nowhere after.

    `budget` asks besides what each of a candidate's weights costs (`Candidate.budget`): it is put into the reference, which must be an open
    model whose backend replaces weights, and the predictions that follow are compared. That is done on the same prompts, or on a `text`, read
    in `chunks` (None: as many as it fills) of `context` tokens.

    `mechanisms` asks whether a candidate gives its answers for the reference's reasons (`Candidate.mechanisms`): influence maps, the heads that
    fulfil known motifs, and the lens. Both sides must be models.

    Raises `ModelOpenError` and its kin for a side that cannot be opened, `PromptError`, `OptionError` where a trace's tokens are not those
    that are asked for, `LimitError` where the reference's signals would be larger than `max_bytes`, `UnsupportedModelError` for models whose
    sizes say that they are different ones (`sizes`: another width, other blocks), or that have no site in common; for a budget, `CapabilityError`
    where a side's weights cannot be read or the reference's not replaced.
    """
    if not candidates:
        raise OptionError("A comparison needs a reference and at least one candidate.")
    if text is not None and not budget:
        raise OptionError("A text is what a budget is made on: ask for one (budget=True, --budget).")
    asked_budget = budgeting.Asked(text, context, chunks) if budget else None
    tried = known_hypotheses() if hypotheses is None else hypotheses
    given = (reference, *candidates)
    asked_sides = list(
        zip(
            given,
            [reference_preset or preset, *[preset] * len(candidates)],
            [*options, *[None] * (len(given) - len(options))],
            [*backends, *[None] * (len(given) - len(backends))],
            strict=True,
        )
    )
    for each in asked_sides:
        check(*each)
    with ExitStack() as stack:
        sides: list[Side] = []
        for each in asked_sides:
            progress(f"opening {named(each[0])}")
            sides.append(stack.enter_context(opened(*each)))
        ours, *theirs = sides
        for side in theirs:
            check_same(ours, side)
        pieces = [] if asked_budget is None else budgeting.prepared(ours, theirs, asked_budget)
        traced = [side.trace for side in sides if side.trace is not None]
        if mechanisms and traced:
            raise OptionError(
                "A saved trace cannot be asked how it came to its answers: compare models, or leave mechanisms out."
            )
        if traced:
            wish = recorded(traced, prompts, prompt_set)
        else:
            wish = asked(ours.model, prompts, ours.spec.vocab, ours.spec.context, prompt_set)
        runs = list(runs_of(ours, wish.prompts, max_bytes, progress))
        for side in theirs:
            check_vocabulary(ours, side, runs)
        found = tuple(held_to(ours, side, wish, runs, tried, progress) for side in theirs)
        if asked_budget is not None:
            pieces = pieces or [Piece(run.ids) for run in runs]
            found = tuple(
                evolve(each, budget=budgeting.budget(ours, side, pieces, each.tensors, progress))
                for side, each in zip(theirs, found, strict=True)
            )
        if mechanisms:
            reasons = Reasons(ours, runs, progress)
            found = tuple(
                evolve(each, mechanisms=reasons.beside(side, each.outputs))
                for side, each in zip(theirs, found, strict=True)
            )
        ran = (RunPrompt(wish.name(run.number), wish.words(run.number), _tokens(ours, run)) for run in runs)
        sizes = sorted((each for run in runs for each in run.norms), key=in_dataflow_order(ours))
        return Comparison(ours.info, tuple(ran), found, ours.notes, tuple(sizes))


def known_hypotheses() -> tuple[Hypothesis, ...]:
    """Those of the core, then those of plugins."""
    from llmtrace.comparison.hypotheses import HYPOTHESES
    from llmtrace.plugins import plugins

    return (*HYPOTHESES, *plugins().hypotheses.values())


def _tokens(reference: Side, run: Run) -> tuple[Token, ...]:
    """A prompt as the reference reads it."""
    if reference.trace is not None:
        return reference.trace.tokens
    return () if reference.model is None else reference.model.tokens(run.ids)
