"""The spec of a model that runs, read off its tapes.

Tapes for reading are of the plain kernels: attention that shows its pattern, and experts that are looked up and not visited one by one, so
that the same operators run whatever the router chooses. What the model does with its own kernels is another tape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from llmtrace.dataflow.constants import Constants
from llmtrace.dataflow.forms import Form
from llmtrace.dataflow.graph import Flow, Graph
from llmtrace.dataflow.locating.locate import locate
from llmtrace.dataflow.reading.model import ReadModel, read_model
from llmtrace.dataflow.reading.reader import Reader, probe_prompt
from llmtrace.dataflow.showing import COARSER, storage
from llmtrace.dataflow.values import values
from llmtrace.errors import ModelOpenError
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import DynamicNtk
from llmtrace_torch.loading import bounded
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.filed import Arrays, Filed, filed_under
from llmtrace_torch.tape.graph import read_graph
from llmtrace_torch.tape.lengths import aligned
from llmtrace_torch.tape.record import TOKENS, Tape, record
from llmtrace_torch.tape.replay import Replay

LENGTHS = (12, 13, 11, 14, 17, 19, 23, 29, 31, 37)
"""Tokens of the shorter prompt, in order of preference."""
LONGER = 8
"""Tokens more that the other prompt has."""
UNSAID = 4096
"""A context that no config states."""


@frozen(eq=False)
class Reading:
    """What was read."""

    model: ReadModel
    tape: Tape
    graph: Graph
    flow: Flow
    """What is content in it."""
    filed: Filed
    """The numbers of parameters."""
    prompt: tuple[int, ...]
    """The prompt of `tape`; no axis but that of tokens is as long."""


def read(model: PreTrainedModel, family: str, tensors: Mapping[str, Array], attention: str = "eager") -> Reading:
    """Run a model on two short prompts, and say what it computes; nothing of that is proven yet. Weights are read from `tensors`, those of its
    file by name, where a parameter is one of them, and from the model elsewhere. `attention` is the kernel that is read.

    Raises `UnsupportedModelError` for what is no decoder that the spec has words for, and `ModelOpenError` where it does not run.
    """
    short = _length(model)
    prompt = prompt_of(model, short, LONGER)
    with plain(model, attention):
        tape, longer = (record(model, prompt[:length]) for length in (short, short + LONGER))
        if len(tape.calls) != len(longer.calls):  # some models make themselves ready in their first run
            tape = record(model, prompt[:short])
    _check(model, tape)
    calls = aligned(tape, longer, dict(model.named_modules()))
    graph, numbers = read_graph(tape, calls)
    leaves = {**tape.leaves, **numbers}
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    anatomy = locate(graph, TOKENS, tape.logits, shapes, _ends(model, tape))
    pieces = Replay(graph.flow(anatomy.row, anatomy.beside), calls, leaves, model.device)
    filed = filed_under(leaves, tensors, model)
    constants = Constants(graph, filed, lambda names: pieces.run(filed.beneath(graph, names), names, short))
    wanted = values(anatomy, graph)
    probe = pieces.run({TOKENS: np.asarray([prompt[:short]])}, wanted, short)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context == 0:
        raise ModelOpenError(
            "The model's config says that it takes prompts of no tokens (max_position_embeddings = 0)."
        )
    context = context if isinstance(context, int) and context > 0 else None
    reader = Reader(pieces.flow, pieces, constants, probe, short, max(context or UNSAID, UNSAID))
    found = read_model(reader, anatomy, family, context)
    turns = [block.attention.rotary for block in found.spec.blocks if block.attention is not None]
    if any(rotary is not None and isinstance(rotary.scaling, DynamicNtk) for rotary in turns):
        found = evolve(found, spec=evolve(found.spec, context=None))  # it goes on beyond what it was trained on
    return Reading(found, tape, graph, pieces.flow, filed, prompt[:short])


def precisions(reading: Reading, model: ReadModel) -> dict[str, Precision]:
    """How finely each site is rounded that has a place in `model`, what it was read as or less."""
    seen, table = Arrays(reading.tape.values), steps(model.spec)
    return {site: Precision(_coarsest(site, model.places, table, seen, reading.flow)) for site in model.places}


def prompt_of(model: PreTrainedModel, tokens: int, more: int = 0, seed: int = 0) -> tuple[int, ...]:
    """A prompt of a model's own tokens, as `probe_prompt`."""
    embedding: Any = model.get_input_embeddings()
    return tuple(probe_prompt(embedding.weight.shape[0], tokens, more, seed))


def _check(model: PreTrainedModel, tape: Tape) -> None:
    """Raise `ModelOpenError` where no weight is to blame and still no number comes out: a damaged config."""
    if bool(tape.values[tape.logits].isfinite().any()):
        return
    if bounded(model):
        raise ModelOpenError(
            "The model computes NaN of finite weights: a number in its config or metadata, as an epsilon or a rotary base, is none that it can "
            "compute with."
        )


@contextmanager
def plain(model: PreTrainedModel, attention: str = "eager") -> Iterator[None]:
    """Let a model compute with a kernel of attention and a plain one of experts, and put its own back."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    own = {
        key: (config._attn_implementation_internal, config._experts_implementation_internal)
        for key, config in configs.items()
    }
    try:
        for config in configs.values():
            config._attn_implementation_internal = attention
            config._experts_implementation_internal = "batched_mm"
        with forgetful(model.modules()):
            yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal, config._experts_implementation_internal = own[key]


def _coarsest(
    site: str,
    places: Mapping[str, tuple[str, Form]],
    table: Mapping[str, Step],
    seen: Mapping[str, Array],
    flow: Flow,
) -> str:
    """The coarsest type that a site's value has been in since the sites that it is computed from, or that tables of angles have."""
    value, _ = places[site]
    own = storage(value, seen, flow.graph)
    if own == "uint8":  # truths
        return own
    kinds, step = {own}, table[site]
    waiting = list(step.inputs)
    for read in waiting:
        if read not in places and read in table:
            waiting += [each for each in table[read].inputs if each not in waiting]
        if read in places:
            between = list(flow.between(places[read][0], value))
            names = {name for vertex in between for name in vertex.makes}
            if step.equation.name in ("rot_q", "rot_k"):
                names |= {name for vertex in between for name in vertex.reads if name not in flow}
            kinds |= {seen[name].dtype.name for name in names if name in seen}
    return min((kind for kind in kinds if kind in COARSER), key=COARSER.index)


def _ends(model: PreTrainedModel, tape: Tape) -> set[str]:
    """What the modules hand out that stand in a list: the blocks do."""
    lists = {name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)}
    return {name for ran in tape.modules if ran.module.rpartition(".")[0] in lists for name in ran.gives.values()}


def _length(model: PreTrainedModel) -> int:
    """A length that no axis has, so that heads are not taken for tokens."""
    taken = {size for weight in model.parameters() for size in weight.shape}
    taken |= {each for each in tree_leaves(model.config.to_dict()) if isinstance(each, int)}
    return next((length for length in LENGTHS if length not in taken), LENGTHS[0])
