"""Everything that a session needs to know of a model that was read: its spec, where signals pass, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from transformers import PreTrainedModel

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.forms import Form, held_by
from llmtrace.dataflow.showing import provenance
from llmtrace.dataflow.weights import stored
from llmtrace.errors import UnsupportedModelError
from llmtrace.protocol import Gap, Offer
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import ModelSpec, Moe, Norm
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.record import record
from llmtrace_torch.tape.spec import Reading, read
from llmtrace_torch.tape.tapped import tapped
from llmtrace_torch.tape.taps import Passing, passing


@frozen(eq=False)
class Found:
    """What was found of a model."""

    spec: ModelSpec
    places: Mapping[str, tuple[str, Form]]
    """Site to the value that holds it, and how it lies there."""
    passing: Mapping[str, Passing]
    """Value to where it passes."""
    weights: Mapping[str, Source]
    stored: Mapping[str, str]
    """Weight to the type that the model holds it in."""
    offers: Mapping[str, Offer]
    gaps: Mapping[str, Gap]
    editable: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find(model: PreTrainedModel, family: str, vocab: int) -> Found:
    """Read a model, and find where its signals pass when it runs with its own kernels.

    Raises `UnsupportedModelError` for what is no decoder that the spec has words for, or where looking changes what the model computes.
    """
    reading = read(model, family, vocab)
    with forgetful(model.modules()):
        own = record(model, reading.prompt, spelled=False)
    wanted = {name for place in reading.model.places.values() for name in held_by(place)}
    seen = passing(wanted, reading.tape, own, len(reading.prompt))
    places = {
        site: place for site, place in reading.model.places.items() if all(name in seen for name in held_by(place))
    }
    _neutral(model, reading.prompt, seen)
    table = steps(reading.model.spec)
    whole = [site for site, place in places.items() if len(held_by(place)) == 1 and not table[site].equation.integer]
    return Found(
        reading.model.spec, places, seen, reading.model.weights, _stored(reading),
        {site: _offer(reading, site) for site in places},
        {site: _gap(site, step, reading, str(model.config._attn_implementation)) for site, step in table.items() if site not in places},
        tuple(site for site in whole if seen[places[site][0]].editable is not None),
        tuple(f"{at} is captured as a whole and no equation is claimed: {why}" for at, why in reading.model.why.items()),
    )  # fmt: skip


def _neutral(model: PreTrainedModel, prompt: tuple[int, ...], seen: Mapping[str, Passing]) -> None:
    """Raise where the logits are not the same bit for bit when everything is looked at."""
    ids = torch.tensor([prompt], device=model.device)
    modules = dict(model.named_modules())
    with torch.no_grad():
        with forgetful(modules.values()):
            bare = model(ids, use_cache=False).logits
        with (
            forgetful(modules.values()),
            tapped(modules, [each.tap for each in seen.values()], lambda _tap, _tensor: None),
        ):
            watched = model(ids, use_cache=False).logits
    if not torch.equal(bare.nan_to_num(), watched.nan_to_num()):
        raise UnsupportedModelError(
            f"{type(model).__name__} computes other logits when it is looked at, so nothing is said of it."
        )


def _stored(reading: Reading) -> dict[str, str]:
    kinds = {name: str(leaf.dtype).removeprefix("torch.") for name, leaf in reading.tape.leaves.items()}
    return stored(reading.model.weights, reading.graph, kinds)


def _offer(reading: Reading, site: str) -> Offer:
    value, form = reading.model.places[site]
    kind = str(reading.tape.values[value].dtype).removeprefix("torch.")
    precision = reading.precision[site]
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
