"""One model on two runtimes, formats or precisions: the tokens, then each site, then why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from attrs import evolve

from llmtrace.comparison import budgeting, own_faults
from llmtrace.comparison.beside import merged, offered
from llmtrace.comparison.budget_text import CONTEXT, Piece
from llmtrace.comparison.by_prompt import prompt_errors
from llmtrace.comparison.by_token import TokenErrors, TokenNorms, norms
from llmtrace.comparison.case import Hypothesis
from llmtrace.comparison.divergences import divergences
from llmtrace.comparison.nearer import nearer
from llmtrace.comparison.outputs import Outputs, outputs
from llmtrace.comparison.probes import Asked, asked, readable, recorded
from llmtrace.comparison.reasons import Reasons
from llmtrace.comparison.recent import ROOM, Recent
from llmtrace.comparison.record import Candidate, Comparison, RunPrompt
from llmtrace.comparison.recordings import Recordings
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Given, Side, check, named, opened
from llmtrace.comparison.sizes import check_same, check_vocabulary
from llmtrace.comparison.specs import differences
from llmtrace.comparison.tokens import Read, read_by_both
from llmtrace.comparison.verdict import judged, unreached
from llmtrace.comparison.watching import Watched, watch
from llmtrace.comparison.weights import Weighing
from llmtrace.errors import LimitError, OptionError, UnsupportedModelError
from llmtrace.model import Prompt
from llmtrace.progress import Progress, nothing_said
from llmtrace.protocol import Preset, SupportsNames
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.selection import DEFAULT_MAX_BYTES, select
from llmtrace.settings import Options
from llmtrace.trace import Token, Trace


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
    count = 1 + len(candidates)
    wanted = [*backends, *[None] * (count - len(backends))]
    settings = [*options, *[None] * (count - len(options))]
    if hypotheses is None:
        hypotheses = known_hypotheses()
    presets = [reference_preset or preset, *[preset] * len(candidates)]
    for given, chosen, setting, backend in zip((reference, *candidates), presets, settings, wanted, strict=True):
        check(given, chosen, setting, backend)
    with ExitStack() as stack:
        sides: list[Side] = []
        for given, chosen, setting, backend in zip((reference, *candidates), presets, settings, wanted, strict=True):
            progress(f"opening {named(given)}")
            sides.append(stack.enter_context(opened(given, chosen, setting, backend)))
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
        runs = list(_runs(ours, wish.prompts, max_bytes, progress))
        for side in theirs:
            check_vocabulary(ours, side, runs)
        found = tuple(_candidate(ours, side, wish, runs, hypotheses, progress) for side in theirs)
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
        sizes = sorted((each for run in runs for each in run.norms), key=_order(ours))
        return Comparison(ours.info, tuple(ran), found, ours.notes, tuple(sizes))


def known_hypotheses() -> tuple[Hypothesis, ...]:
    """Those of the core, then those of plugins."""
    from llmtrace.comparison.hypotheses import HYPOTHESES
    from llmtrace.plugins import plugins

    return (*HYPOTHESES, *plugins().hypotheses.values())


def _runs(reference: Side, prompts: Sequence[Prompt], max_bytes: int | None, progress: Progress) -> Iterator[Run]:
    """The reference's signals, prompt by prompt."""
    if reference.trace is not None:
        trace = reference.trace
        signals = {site: np.asarray(trace[site].array) for site in trace.signals if not trace.signals[site].part}
        yield Run(0, tuple(token.id for token in trace.tokens), signals, _precision(trace), norms(0, signals))
        return
    if (model := reference.model) is None:
        return
    sites = offered(model.session, reference.equations)
    every = readable(model, prompts)

    def traced(number: int) -> Trace:
        ids = every[number]
        try:
            return model.trace(ids, capture=select(*sites), max_bytes=max_bytes)
        except LimitError as error:
            raise LimitError(
                f"On prompt {number + 1}, of {len(ids):,} tokens, the reference's signals are larger than the limit of {max_bytes:,} "
                "bytes. Compare on shorter prompts, or raise the limit (max_bytes=, --max-bytes)."
            ) from error

    recordings = Recordings(lambda number: _arrays(traced(number)))

    def ran(number: int) -> Run:  # a function, so that nothing of one prompt is held while the next is run
        trace = traced(number)
        signals = _arrays(trace)
        view = recordings.add(number, signals)
        return Run(number, tuple(every[number]), view, _precision(trace), norms(number, signals))

    for number in range(len(every)):
        progress(f"{reference.name}: prompt {number + 1} of {len(every)}")
        yield ran(number)


def _arrays(trace: Trace) -> dict[str, Array]:
    return {site: signal.array for site, signal in trace.signals.items()}


def _precision(trace: Trace) -> dict[str, Precision]:
    """Of the signals that were captured: those that are derived obey their equations by construction."""
    return {site: each.precision for site, each in trace.signals.items() if each.provenance.kind != "derived"}


def _candidate(
    reference: Side,
    candidate: Side,
    wish: Asked,
    runs: Sequence[Run],
    hypotheses: Sequence[Hypothesis],
    progress: Progress,
) -> Candidate:
    reference, candidate = (
        evolve(
            side, equations=evolve(side.equations, weights=Recent(side.equations.weights, ROOM if len(runs) > 1 else 0))
        )
        for side in (reference, candidate)
    )
    ours = reference.equations
    weighing = Weighing(reference, candidate)
    watched: list[Watched] = []
    predicted: list[Outputs | None] = []
    for run in runs:
        progress(f"{candidate.name}: prompt {run.number + 1} of {len(runs)}")
        next(iter(run.signals.values()), None)  # run again now if it must be, not in the middle of the candidate's run
        watched.append(watch(reference, candidate, run, weighing))
        predicted.append(_outputs(watched[-1]))
    progress(f"{candidate.name}: the weights, and why")
    sites = merged(each.beside.found for each in watched)
    ordered = tuple(sites[site] for site in reference.equations.steps if site in sites)
    if not any(each.status in ("holds", "violated") for each in ordered):
        raise UnsupportedModelError(
            f"{candidate.info.source} shows no signal that the equations of {reference.info.source} could be held against: "
            "they are different models, or the trace holds too little."
        )
    tensors = tuple(weighing.tensors())
    longest = max(len(run.ids) for run in runs)
    found = tuple(divergences(reference, candidate, [each.beside for each in watched], tensors, hypotheses))
    suspect = () if found else [each.run for each in watched if _moved(each)]
    found = found or tuple(own_faults.alone(ours, suspect[0]) if suspect else ())
    read = _read(reference, candidate, wish)
    draft = Candidate(
        candidate.info,
        "agrees",
        "",
        read.differences,
        tuple(differences(reference.spec, candidate.spec, (reference.info.weights, candidate.info.weights))),
        found,
        ordered,
        tensors,
        tuple(filter(None, predicted)),
        tuple(prompt_errors(each.run.number, each.beside.found) for each in watched),
        tuple(sorted((strip for each in watched for strip in each.beside.strips), key=_order(reference))),
        tuple(flips for each in watched for flips in each.beside.flips),
        tuple(nearer(reference.equations, watched[found[0].prompt], [found[0].site, "logits"]) if found else ()),
        max(each.tolerance for each in ordered if each.status in ("holds", "violated")),
        _names(candidate),
        tuple(
            dict.fromkeys(
                (
                    *own_faults.beside(ours, runs, found if not suspect else ()),
                    *candidate.info.notes,
                    *candidate.notes,
                    *unreached(reference.spec, candidate.spec, longest),
                )
            )
        ),
        tokens_not_compared=read.not_compared,
    )
    return judged(draft, len(runs), tuple(dict.fromkeys(name for each in watched for name in each.coarse)))


def _moved(watched: Watched) -> bool:
    """Whether the logits differ, though the candidate holds in float32 all that the reference's equations say."""
    logits = watched.beside.found.get("logits")
    inherited = None if logits is None else logits.inherited_error
    return inherited is not None and inherited > own_faults.SUSPECT and not watched.coarse


def _names(candidate: Side) -> Mapping[str, str]:
    if candidate.model is not None and isinstance(candidate.model.session, SupportsNames):
        return candidate.model.session.names
    return {}


def _read(reference: Side, candidate: Side, wish: Asked) -> Read:
    """What both sides' tokenizers make of the texts."""
    if wish.untold:
        return Read(not_compared=wish.untold)
    ours, theirs = (None if side.model is None else side.model.tokenizer for side in (reference, candidate))
    return read_by_both(ours, theirs, wish.texts)


def _outputs(watched: Watched) -> Outputs | None:
    theirs = watched.run.signals.get("logits")
    if theirs is None or watched.logits is None:
        return None
    return outputs(watched.run.number, np.asarray(theirs), watched.logits)


def _order(reference: Side) -> Callable[[TokenErrors | TokenNorms], tuple[int, int]]:
    """In dataflow order, and of each site by prompt."""
    places = {site: place for place, site in enumerate(reference.equations.steps)}
    return lambda each: (places[each.site], each.prompt)


def _tokens(reference: Side, run: Run) -> tuple[Token, ...]:
    """A prompt as the reference reads it."""
    if reference.trace is not None:
        return reference.trace.tokens
    return () if reference.model is None else reference.model.tokens(run.ids)
