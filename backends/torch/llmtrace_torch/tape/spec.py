"""The spec of a model that runs, read off its tapes.

Tapes for reading are of the plain kernels: attention that shows its pattern, and experts that are looked up and not visited one by one, so
that the same operators run whatever the router chooses. What the model does with its own kernels is another tape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from attrs import frozen
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from llmtrace.dataflow.constants import Constants
from llmtrace.dataflow.forms import shown
from llmtrace.dataflow.graph import Flow, Graph
from llmtrace.dataflow.locating.locate import locate
from llmtrace.dataflow.proof import proven
from llmtrace.dataflow.reading.model import ReadModel, read_model
from llmtrace.dataflow.reading.reader import Reader, probe_prompt
from llmtrace.dataflow.showing import COARSER, storage
from llmtrace.dataflow.values import values
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace_torch.arrays import as_numpy
from llmtrace_torch.rotary import forgetful
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
    precision: Mapping[str, Precision]
    prompt: tuple[int, ...]
    """The prompt of `tape`; no axis but that of tokens is as long."""


def read(model: PreTrainedModel, family: str, vocab: int) -> Reading:
    """Run a model on two short prompts, and say what it computes.

    Raises `UnsupportedModelError` for what is no decoder that the spec has words for, and `ModelOpenError` where it does not run.
    """
    short = _length(model)
    prompt = probe_prompt(vocab, short, LONGER)
    with plain(model):
        tape, longer = (record(model, prompt[:length]) for length in (short, short + LONGER))
    calls = aligned(tape, longer, dict(model.named_modules()))
    graph, numbers = read_graph(tape, calls)
    leaves = {**tape.leaves, **numbers}
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    anatomy = locate(graph, TOKENS, tape.logits, shapes, _ends(model, tape))
    pieces = Replay(graph.flow(anatomy.row), calls, leaves, model.device)
    constants = Constants(graph, Arrays(leaves), lambda names: pieces.run({}, names, short))
    wanted = values(anatomy, graph)
    probe = pieces.run({TOKENS: np.asarray([prompt[:short]])}, wanted, short)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    context = context if isinstance(context, int) and context > 0 else None
    reader = Reader(pieces.flow, pieces, constants, probe, short, context or UNSAID)
    found = read_model(reader, anatomy, family, context)
    seen = Arrays(tape.values)
    signals = {site: shown(form, value, seen, short) for site, (value, form) in found.places.items()}
    signals |= {"tokens": np.asarray(prompt[:short]), "positions": np.arange(short)}
    precision = {site: Precision(_coarsest(site, found, seen, pieces.flow)) for site in found.places}
    return Reading(proven(found, signals, precision), tape, graph, precision, tuple(prompt[:short]))


class Arrays(Mapping[str, Array]):
    """Tensors as arrays, when they are asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        return as_numpy(self._tensors[name])

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@contextmanager
def plain(model: PreTrainedModel) -> Iterator[None]:
    """Let a model compute with plain kernels, and put its own back."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    own = {
        key: (config._attn_implementation_internal, config._experts_implementation_internal)
        for key, config in configs.items()
    }
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
            config._experts_implementation_internal = "batched_mm"
        with forgetful(model.modules()):
            yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal, config._experts_implementation_internal = own[key]


def _coarsest(site: str, found: ReadModel, seen: Mapping[str, Array], flow: Flow) -> str:
    """The coarsest type that a site's value has been in since the sites that it is computed from, or that tables of angles have."""
    value, _ = found.places[site]
    kinds = {storage(value, seen, flow.graph)}
    step = steps(found.spec)[site]
    for read in step.inputs:
        if read in found.places:
            between = list(flow.between(found.places[read][0], value))
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
