"""What a model computes, told without llmtrace: its hidden states and attentions as transformers returns them, its softmaxes, what its matrices read.

**Attention**: a softmax over the tokens of the prompt, as transformers' eager kernel calls it. Its values are the pattern, also where a model
returns no attentions; where sinks stand beside the tokens, without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from attrs import field, frozen
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmtrace.schema.sites import Array
from llmtrace_torch.rotary import forgetful

SOFTMAX = (torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default)


@frozen(eq=False)
class Computed:
    """One run."""

    logits: Array
    hidden: tuple[Array, ...] = ()
    """Of each layer what it reads, or of some types what it leaves, and last what the final norm makes."""
    softmaxes: list[Array] = field(factory=list)
    """`[head, query, key]`, in the order in which they were computed."""
    attentions: tuple[Array, ...] = ()
    """As returned."""
    reads: list[Array] = field(factory=list)
    """What each matrix of the model read, `[token, width]`."""


class _Softmaxes(TorchDispatchMode):
    """Keeps what is a softmax over all tokens."""

    def __init__(self, tokens: int, kept: list[Array]) -> None:
        super().__init__()
        self._tokens, self._kept = tokens, kept

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in SOFTMAX and out.ndim >= 3 and out.shape[-2] == self._tokens and out.shape[-1] >= self._tokens:
            whole = out.detach().reshape(-1, *out.shape[-2:])
            self._kept.append(whole[..., : self._tokens].float().numpy().copy())
        return out


def run(model: PreTrainedModel, prompt: list[int]) -> Computed:
    """A plain run that nobody looks at."""
    ids = torch.tensor([prompt])
    with torch.no_grad(), forgetful(model.modules()):
        return Computed(model(ids, use_cache=False).logits[0].numpy().copy())


def watched(model: PreTrainedModel, prompt: list[int]) -> Computed:
    """A run with hidden states, softmaxes and what matrices read; another with attentions, which changes kernels of some models."""
    ids = torch.tensor([prompt])
    kept: list[Array] = []
    reads: list[Array] = []
    with torch.no_grad(), forgetful(model.modules()), _reading(model, reads), _Softmaxes(len(prompt), kept):
        out = model(ids, use_cache=False, output_hidden_states=True)
    return Computed(out.logits[0].numpy().copy(), _each(out, "hidden_states"), kept, _attentions(model, ids), reads)


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
def _reading(model: PreTrainedModel, reads: list[Array]) -> Iterator[None]:
    def look(_module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], torch.Tensor) and args[0].ndim >= 2:
            reads.append(args[0].detach().reshape(-1, args[0].shape[-1]).float().numpy().copy())

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | Conv1D):
                handle = module.register_forward_pre_hook(look)
                hooks.callback(handle.remove)
        yield
