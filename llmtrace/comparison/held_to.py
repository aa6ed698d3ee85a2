"""One candidate held to the reference, over all prompts: from what was watched to its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import evolve

from llmtrace.comparison import own_faults
from llmtrace.comparison.beside import merged
from llmtrace.comparison.by_prompt import prompt_errors
from llmtrace.comparison.by_token import TokenErrors, TokenNorms
from llmtrace.comparison.case import Hypothesis
from llmtrace.comparison.divergences import divergences
from llmtrace.comparison.nearer import nearer
from llmtrace.comparison.outputs import Outputs, outputs
from llmtrace.comparison.probes import Asked
from llmtrace.comparison.recent import ROOM, Recent
from llmtrace.comparison.record import Candidate
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.comparison.specs import differences
from llmtrace.comparison.tokens import Read, read_by_both
from llmtrace.comparison.verdict import judged, unreached
from llmtrace.comparison.watching import Watched, watch
from llmtrace.comparison.weights import Weighing
from llmtrace.errors import UnsupportedModelError
from llmtrace.progress import Progress
from llmtrace.protocol import SupportsNames


def held_to(
    reference: Side,
    candidate: Side,
    wish: Asked,
    runs: Sequence[Run],
    hypotheses: Sequence[Hypothesis],
    progress: Progress,
) -> Candidate:
    """Run a candidate beside the reference on every prompt, and say where it stops being the same model, and why.

    Raises `UnsupportedModelError` where no signal of it can be held against the reference's equations.
    """
    room = ROOM if len(runs) > 1 else 0
    reference, candidate = _remembering(reference, room), _remembering(candidate, room)
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
    ordered = tuple(sites[site] for site in ours.steps if site in sites)
    compared = [each for each in ordered if each.status in ("holds", "violated")]
    if not compared:
        raise UnsupportedModelError(
            f"{candidate.info.source} shows no signal that the equations of {reference.info.source} could be held against: "
            "they are different models, or the trace holds too little."
        )
    tensors = tuple(weighing.tensors())
    found = tuple(divergences(reference, candidate, [each.beside for each in watched], tensors, hypotheses))
    suspect = () if found else [each.run for each in watched if _moved(each)]
    found = found or tuple(own_faults.alone(ours, suspect[0]) if suspect else ())
    notes = (
        *own_faults.beside(ours, runs, found if not suspect else ()),
        *candidate.info.notes,
        *candidate.notes,
        *unreached(reference.spec, candidate.spec, max(len(run.ids) for run in runs)),
    )
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
        tuple(sorted((strip for each in watched for strip in each.beside.strips), key=in_dataflow_order(reference))),
        tuple(flips for each in watched for flips in each.beside.flips),
        tuple(nearer(ours, watched[found[0].prompt], [found[0].site, "logits"]) if found else ()),
        max(each.tolerance for each in compared),
        _names(candidate),
        tuple(dict.fromkeys(notes)),
        tokens_not_compared=read.not_compared,
    )
    return judged(draft, len(runs), tuple(dict.fromkeys(name for each in watched for name in each.coarse)))


def _remembering(side: Side, room: int) -> Side:
    """A side that holds weights which it has read, as many as there is room for."""
    return evolve(side, equations=evolve(side.equations, weights=Recent(side.equations.weights, room)))


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


def in_dataflow_order(reference: Side) -> Callable[[TokenErrors | TokenNorms], tuple[int, int]]:
    """A key to sort by: in dataflow order, and of each site by prompt."""
    places = {site: place for place, site in enumerate(reference.equations.steps)}
    return lambda each: (places[each.site], each.prompt)
