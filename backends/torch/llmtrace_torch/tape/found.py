"""Everything that a session needs to know of a model that was read: its spec, where signals pass, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from attrs import evolve, frozen
from transformers import PreTrainedModel

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.forms import Form, held_by, shown
from llmtrace.dataflow.proof import proven
from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.showing import provenance
from llmtrace.dataflow.weights import stored as stored_as
from llmtrace.errors import UnsupportedModelError
from llmtrace.protocol import Gap, Offer
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import ModelSpec, Moe, Norm
from llmtrace_torch.arrays import kind_of
from llmtrace_torch.loading import bounded
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.filed import Arrays, Filed
from llmtrace_torch.tape.lasting import lasting
from llmtrace_torch.tape.record import Tape, record
from llmtrace_torch.tape.spec import Reading, plain, precisions, prompt_of, read
from llmtrace_torch.tape.taps import Passing, alike, passing

PROMPTS = 4
"""Prompts on which two kernels may agree."""


@frozen(eq=False)
class Found:
    """What was found of a model."""

    spec: ModelSpec
    places: Mapping[str, tuple[str, Form]]
    """Site to the value that holds it, and how it lies there."""
    passing: Mapping[str, Passing]
    """Value to where it passes."""
    weights: Mapping[str, Source]
    filed: Filed
    """The numbers that the weights are read from."""
    leaves: Mapping[str, torch.Tensor]
    """The model's parameters and buffers, as they lie in memory, by name."""
    stored: Mapping[str, str]
    """Weight to the type that the model holds it in."""
    offers: Mapping[str, Offer]
    gaps: Mapping[str, Gap]
    editable: tuple[str, ...]
    lasting: frozenset[str]
    """Sites whose values the model leaves as they are once they have passed."""
    notes: tuple[str, ...] = ()


def find(
    model: PreTrainedModel,
    family: str,
    tensors: Mapping[str, Array] | None = None,
    stored: Mapping[str, str] | None = None,
) -> Found:
    """Read a model, find where its signals pass when it runs with its own kernels, and hold what passes there to the equations.

    `tensors` are those of its file by name, as far as they are there to be read; `stored` says by what types the file has parameters.
    Raises `UnsupportedModelError` for what is no decoder that the spec has words for.
    """
    reading, tape, own, prompt = _tapes(model, family, tensors or {})
    wanted = dict.fromkeys(name for place in reading.model.places.values() for name in held_by(place))
    seen = passing(wanted, tape, own, len(prompt))
    places = {
        site: place for site, place in reading.model.places.items() if all(name in seen for name in held_by(place))
    }
    found = evolve(reading.model, places=places)
    precision = precisions(reading, found)
    proved = proven(found, _signals(places, seen, own, prompt), precision, finite=bounded(model))
    reading.filed.settled = True
    table = steps(proved.spec)
    places = {site: proved.places[site] for site in table if site in proved.places}
    whole = [site for site, place in places.items() if len(held_by(place)) == 1 and not table[site].equation.integer]
    return Found(
        proved.spec, places, seen, proved.weights, reading.filed, _leaves(model, reading), _stored(proved, reading, stored or {}),
        {site: _offer(reading, site, precision[site]) for site in places},
        {site: _gap(site, step, reading, str(model.config._attn_implementation)) for site, step in table.items() if site not in places},
        tuple(site for site in whole if seen[places[site][0]].editable is not None),
        lasting(model, prompt, places, seen),
        tuple(f"{at} is captured as a whole and no equation is claimed: {why}" for at, why in proved.why.items()),
    )  # fmt: skip


def _tapes(
    model: PreTrainedModel, family: str, tensors: Mapping[str, Array]
) -> tuple[Reading, Tape, Tape, Sequence[int]]:
    """What was read of a model, a tape of the kernels that were read, one of its own, which compute the same, and the prompt of the two.

    Two kernels that round otherwise may choose other experts for a token: then another prompt is taken.
    """
    kernel = str(model.config._attn_implementation)
    for attention in dict.fromkeys(("eager", kernel)):
        reading = read(model, family, tensors, attention)
        table = steps(reading.model.spec)
        chosen = {place[0] for site, place in reading.model.places.items() if table[site].equation.integer}
        for seed in range(PROMPTS):
            prompt = reading.prompt if not seed else prompt_of(model, len(reading.prompt), seed=seed)
            with plain(model, attention):
                tape = reading.tape if not seed else record(model, prompt)
            with forgetful(model.modules()):
                own = record(model, prompt, spelled=False)
            same = alike(tape.values[tape.logits], own.values[own.logits])
            if same and chosen <= set(passing(chosen, tape, own, len(prompt))):
                return reading, tape, own, prompt
    raise UnsupportedModelError(
        f"its {kernel} attention computes other logits than the same attention operator by operator, so what is read off the one says "
        "nothing of the other."
    )


def _signals(
    places: Mapping[str, tuple[str, Form]], seen: Mapping[str, Passing], own: Tape, prompt: Sequence[int]
) -> dict[str, Array]:
    """What passes where signals are seen, as the schema has it, and what the model is given."""
    values = Arrays({name: own.values[each.value] for name, each in seen.items()})
    signals = {site: shown(form, value, values, len(prompt)) for site, (value, form) in places.items()}
    return {**signals, "tokens": np.asarray(prompt), "positions": np.arange(len(prompt))}


def _leaves(model: PreTrainedModel, reading: Reading) -> dict[str, torch.Tensor]:
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: leaf for name, leaf in reading.tape.leaves.items() if name in own and leaf.is_floating_point()}


def _stored(proved: ReadModel, reading: Reading, stored: Mapping[str, str]) -> dict[str, str]:
    filed = reading.filed
    own = {name: stored[tensor] for name, tensor in filed.names.items() if tensor in stored}
    return stored_as(proved.weights, reading.graph, {**filed.kinds, **stored, **own})


def _offer(reading: Reading, site: str, precision: Precision) -> Offer:
    value, form = reading.model.places[site]
    kind = kind_of(reading.tape.values[value]).replace("bool", "uint8")
    return Offer(provenance(form), precision, kind if kind != precision.storage else "")


def _gap(site: str, step: Step, reading: Reading, kernel: str) -> Gap:
    name = step.equation.name
    if name == "result":
        return Gap("impossible", "the output matrix sums over heads, so no head's own part is ever computed")
    if site in reading.model.places and name in ("scores", "pattern", "sink"):
        return Gap("upstream", f"the {kernel} kernel keeps it to itself; attention=eager hands it out")
    if site in reading.model.places and isinstance(step.record, Moe):
        return Gap("upstream", "the experts' kernel keeps it to itself")
    if isinstance(step.record, Norm):
        return Gap("upstream", "it stays inside the norm")
    return Gap("upstream", "no operator of the model makes it")
