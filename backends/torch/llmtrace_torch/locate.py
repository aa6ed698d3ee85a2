"""Which taps show their site: found by running the model once on a few tokens and looking at the shapes that pass.

**Place**: a tap that showed its site, with the type in which it passes there. The number of probe tokens is one that no other axis
has, so that heads are not taken for tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from attrs import frozen
from transformers import PreTrainedModel

from llmtrace.families.native import Family, stored_shape
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import ModelSpec
from llmtrace_torch.attention import switchable, unknown_keywords
from llmtrace_torch.capture import KERNEL, hooked
from llmtrace_torch.command import commands
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.sites import Anatomy, Tap, anatomy, taps

COUNTS = (5, 7, 3, 11, 13, 17, 2)
"""Probe tokens, in order of preference."""
Key = tuple[str, int]


@frozen
class Place:
    """A tap that showed its site."""

    tap: Tap
    dtype: str
    divisor: float = 1.0
    """What the runtime had multiplied the signal by, to be undone."""


@frozen
class Located:
    """All that the probe found."""

    places: Mapping[str, Place]
    editable: Mapping[str, Place]
    """Of the sites that can be edited, the tap where every reader sees the change."""
    body: Anatomy
    refused: str = ""
    """Why nothing is taken from the attention interface, if so."""


def locate(model: PreTrainedModel, spec: ModelSpec, family: Family) -> Located:
    """Run a probe with every tap in place, and keep for each site the first tap whose tensor has the site's shape.

    One run looks for the sites and tells whether switching the attention implementation is neutral, which is never taken on trust:
    its logits are those of a bare run bit for bit, or nothing is taken from the attention interface.
    """
    modules = dict(model.named_modules())
    body = anatomy(spec, family, modules)
    places = taps(spec, family, body)
    tried: dict[Key, Tap] = {(site, rank): tap for site, here in places.items() for rank, tap in enumerate(here)}
    tokens = _tokens(spec)
    refused = (
        ""
        if switchable(model)
        else f"{type(model).__name__} does not call its attention through transformers' interface"
    )
    outside = {key: tap for key, tap in tried.items() if tap.port not in KERNEL}
    if refused:
        _, seen, named = _look(model, modules, spec, outside, tokens)
    else:
        bare = _logits(model, tokens)
        observed, seen, named = _look(model, modules, spec, tried, tokens)
        if not _same(bare, observed):
            refused = "the logits move when its attention implementation is switched"
            _, seen, named = _look(model, modules, spec, outside, tokens)
        elif unknown := unknown_keywords(named):
            refused = f"the model hands its kernel {', '.join(unknown)}, which LLMTrace does not know"
            seen = {key: tensor for key, tensor in seen.items() if key in outside}
    table = steps(spec)
    found: dict[str, Place] = {}
    editable: dict[str, Place] = {}
    for (site, rank), (shape, dtype) in sorted(seen.items(), key=lambda item: item[0][1]):
        tap = tried[site, rank]
        if _fits(shape, tap, table[site], len(tokens)):
            place = Place(tap, dtype, _divisor(tap, table[site], named))
            found.setdefault(site, place)
            if site not in editable and commands(site, tap, table, family, body):
                editable[site] = place
    inner = [{site: places[site] for site in table if site in places} for places in (found, editable)]
    return Located(inner[0], inner[1], body, refused)


def choices(spec: ModelSpec) -> int:
    """How many experts a token takes; 0 in a model without any."""
    return max((step.sizes.get("choice", 0) for step in steps(spec).values()), default=0)


def _tokens(spec: ModelSpec) -> list[int]:
    taken = {size for step in steps(spec).values() for axis, size in step.sizes.items() if axis != "vocab"}
    most = spec.context or max(COUNTS)
    count = next((count for count in COUNTS if count not in taken and count <= most), min(2, most))
    return [place % spec.vocab for place in range(1, 1 + count)]


def _logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad(), forgetful(model.modules()):
        logits: torch.Tensor = model(torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits


def _look(
    model: PreTrainedModel,
    modules: Mapping[str, torch.nn.Module],
    spec: ModelSpec,
    tried: Mapping[Key, Tap],
    tokens: list[int],
) -> tuple[torch.Tensor, dict[Key, tuple[tuple[int, ...], str]], dict[str, Any]]:
    """The logits, shape and type of what passes at each tap, and the keywords that the kernel was given."""
    seen: dict[Key, tuple[tuple[int, ...], str]] = {}
    named: dict[str, Any] = {}

    def note(key: Key, tensor: torch.Tensor) -> None:
        seen.setdefault(key, (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")))

    with hooked(model, modules, tried, choices(spec), note, named=named):
        logits = _logits(model, tokens)
    return logits, seen, named


def _same(bare: torch.Tensor, observed: torch.Tensor) -> bool:
    """Whether two logits are equal, NaN at the same places where there is any."""
    nan = torch.isnan(bare)
    return torch.equal(bare, observed) or bool(nan.any() and (nan == torch.isnan(observed)).all())


def _fits(shape: tuple[int, ...], tap: Tap, step: Step, tokens: int) -> bool:
    """Whether a tensor of a batch of one has the axes that the tap says."""
    expected = stored_shape(tap.axes, dict(step.sizes) | {"token": tokens, "query": tokens, "key": tokens})
    if not tap.axes.startswith("token"):
        return shape == (1, *expected)
    rest = prod(expected[1:])
    return any(shape[: len(head)] == head and prod(shape[len(head) :]) == rest for head in ((1, tokens), (tokens,)))


def _divisor(tap: Tap, step: Step, named: Mapping[str, Any]) -> float:
    """OPT and its kin scale q before the kernel and tell the kernel not to: the scale is taken out again."""
    scaled = tap.port == "query" and named.get("scaling") == 1.0
    return float(step.record.scale) if scaled else 1.0
