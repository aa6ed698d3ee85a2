"""What a model computes, told without llmtrace: its hidden states and attentions as transformers returns them, its softmaxes and what they mix, and
what its modules read and make.

**Attention**: a softmax over the tokens of the prompt, as transformers' eager kernel calls it. Its values are the pattern, also where a model
returns no attentions; where sinks stand beside the tokens, without them. **Mixture**: the product of a pattern with the values of its heads.
**Layer**: a module of a list of modules, outside of all other lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmtrace.schema.sites import Array
from llmtrace_torch.rotary import forgetful

SOFTMAX = (torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default)
FUSED = "_scaled_dot_product"
"""How the operators begin whose softmax nobody sees."""


@frozen(eq=False)
class Passed:
    """What one module read, or made."""

    values: Array
    """`[token, width]`"""
    attentions: int
    """How many had run by then."""
    made: bool
    matrix: bool
    """Whether the module is one."""
    layers: int
    """The number of the list that it is a layer of; 0 where it is none."""


@frozen(eq=False)
class Computed:
    """One run."""

    logits: Array
    hidden: tuple[Array, ...] = ()
    """Of each layer what it reads, or of some types what it leaves, and last what the final norm makes."""
    softmaxes: list[Array] = field(factory=list)
    """`[head, query, key]`, in the order in which they were computed."""
    mixtures: dict[int, Array] = field(factory=dict)
    """`[token, head, width]`, by the place of the softmax; those that were seen."""
    fused: int = 0
    """Attentions whose softmax nobody sees."""
    attentions: tuple[Array, ...] = ()
    """As returned."""
    passed: list[Passed] = field(factory=list)
    """By modules, in the order in which it passed."""

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Where in `passed` each layer begins and ends that a hidden state is returned of; empty where they cannot be told."""
        for number in sorted({each.layers for each in self.passed} - {0}):
            own = [place for place, each in enumerate(self.passed) if each.layers == number]
            begins, ends = ([place for place in own if self.passed[place].made is made] for made in (False, True))
            first = self.hidden and any(np.array_equal(self.passed[place].values, self.hidden[0]) for place in own)
            if first and len(begins) == len(ends) == len(self.hidden) - 1:
                return list(zip(begins, ends, strict=True))
        return []


class _Attending(TorchDispatchMode):
    """Keeps what is a softmax over all tokens, and the first product with it."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._tokens = tokens
        self.softmaxes: list[Array] = []
        self.mixtures: dict[int, Array] = {}
        self.fused = 0
        self._last: torch.Tensor | None = None

    @property
    def attentions(self) -> int:
        return len(self.softmaxes) + self.fused

    @property
    def _place(self) -> int:
        return len(self.softmaxes) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in SOFTMAX and out.ndim >= 3 and out.shape[-2] == self._tokens and out.shape[-1] >= self._tokens:
            self._last = out.detach().reshape(-1, *out.shape[-2:])[..., : self._tokens].float().clone()
            self.softmaxes.append(self._last.numpy())
        elif str(func).removeprefix("aten.").startswith(FUSED):
            self.fused += 1
        elif func is torch.ops.aten.bmm.default and self._last is not None and self._place not in self.mixtures:
            left = args[0].float()
            if left.numel() == self._last.numel() and torch.equal(left.reshape(self._last.shape), self._last):
                mixed = out.detach().float().reshape(*self._last.shape[:2], out.shape[-1])
                self.mixtures[self._place] = mixed.transpose(0, 1).numpy().copy()
        return out


def run(model: PreTrainedModel, prompt: list[int]) -> Computed:
    """A plain run that nobody looks at."""
    ids = torch.tensor([prompt])
    with torch.no_grad(), forgetful(model.modules()):
        return Computed(model(ids, use_cache=False).logits[0].numpy().copy())


def watched(model: PreTrainedModel, prompt: list[int]) -> Computed:
    """A run with all but attentions; another with these, which changes kernels of some models."""
    ids = torch.tensor([prompt])
    passed: list[Passed] = []
    attending = _Attending(len(prompt))
    with torch.no_grad(), forgetful(model.modules()), _passing(model, attending, len(prompt), passed), attending:
        out = model(ids, use_cache=False, output_hidden_states=True)
    return Computed(
        out.logits[0].numpy().copy(), _each(out, "hidden_states"), attending.softmaxes, attending.mixtures,
        attending.fused, _attentions(model, ids), passed,
    )  # fmt: skip


def _attentions(model: PreTrainedModel, ids: torch.Tensor) -> tuple[Array, ...]:
    if model.config._attn_implementation != "eager":
        return ()
    try:
        with torch.no_grad(), forgetful(model.modules()):
            return _each(model(ids, use_cache=False, output_attentions=True), "attentions")
    except Exception:  # a model that cannot return them: its softmaxes are what is left
        return ()


def _each(out: Any, name: str) -> tuple[Array, ...]:
    return tuple(
        each[0].float().numpy().copy() for each in getattr(out, name, None) or () if isinstance(each, torch.Tensor)
    )


@contextmanager
def _passing(model: PreTrainedModel, attending: _Attending, tokens: int, passed: list[Passed]) -> Iterator[None]:
    """Look at what each module reads first and makes first, as long as it has a row a token."""
    layers = _layers(model)

    def keep(module: torch.nn.Module, given: Any, *, made: bool) -> None:
        each = given if isinstance(given, torch.Tensor) else next(filter(torch.is_tensor, given or ()), None)
        if each is not None and each.is_floating_point() and each.ndim >= 2 and each.numel() % tokens == 0:
            rows = each.detach().reshape(-1, each.shape[-1])
            if len(rows) == tokens:
                matrix = isinstance(module, torch.nn.Linear | Conv1D)
                values = rows.float().numpy().copy()
                passed.append(Passed(values, attending.attentions, made, matrix, layers.get(module, 0)))

    def before(module: torch.nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(module, (*args, *named.values()), made=False)

    def after(module: torch.nn.Module, _args: Any, out: Any) -> None:
        keep(module, tuple(out.values()) if isinstance(out, dict) else out, made=True)

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        yield


def _layers(model: torch.nn.Module) -> dict[torch.nn.Module, int]:
    """Layer to the number of its list."""
    lists = list(_lists(model))
    return {layer: number for number, each in enumerate(lists, 1) for layer in each}


def _lists(module: torch.nn.Module) -> Iterator[torch.nn.ModuleList]:
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield child
        else:
            yield from _lists(child)
