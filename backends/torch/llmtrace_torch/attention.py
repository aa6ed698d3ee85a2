"""q, k, v and the pattern, as transformers' attention interface hands them to the kernel.

**Kernel**: the attention function that the model would have called by itself. For a run that needs them, the model is switched to
an implementation named `llmtrace`; it passes q, k and v on to whoever listens, calls the kernel with all that it was given, and
returns what the kernel returned. Which run that is, a context variable says, so that two sessions know nothing of each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from attrs import frozen
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llmtrace.errors import LLMTraceError

NAME = "llmtrace"
NEUTRAL = frozenset(
    {
        "dropout", "is_causal", "sliding_window", "softcap", "s_aux", "position_ids", "use_cache", "output_attentions",
        "output_hidden_states", "cache_position", "layer_idx", "return_dict", "output_router_logits", "logits_to_keep",
    }
)  # fmt: skip
"""Keywords that a model may hand its kernel and that the equations know of, or that do not change the result."""


class Listener(Protocol):
    """Receives what goes into the kernel and the weights that come out of it, before anything can modify them in place."""

    def attention(
        self, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], named: Mapping[str, Any]
    ) -> Mapping[str, torch.Tensor]:
        """`tensors` are `query` [batch head token d_head], `key`, `value`; then, in a second call, `pattern` where there is one. Returns what
        goes into the kernel in their place; of the pattern, nothing reads it any more."""


@frozen
class Listening:
    """A run that listens."""

    kernel: str
    """`eager` or `sdpa`: what the model would have called."""
    listener: Listener


_running: ContextVar[Listening | None] = ContextVar("llmtrace_torch_listening", default=None)


def _listening() -> Listening:
    running = _running.get()
    if running is None:
        raise LLMTraceError(
            "A model was left switched to LLMTrace's attention outside a run: this is a bug of llmtrace-torch."
        )
    return running


def kernel_of(module: torch.nn.Module, kernel: str) -> Callable[..., Any] | None:
    """The function that the module calls under this kernel: eager is the one in the module's own file."""
    if kernel == "eager":
        return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    found: Callable[..., Any] | None = ALL_ATTENTION_FUNCTIONS.get(kernel)
    return found


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Any,
    *rest: Any,
    **named: Any,
) -> Any:
    """What stands in for the kernel: listen, call it with everything, listen again."""
    running = _listening()
    given = running.listener.attention(module, {"query": query, "key": key, "value": value}, named)
    call = kernel_of(module, running.kernel)
    if call is None:
        raise LLMTraceError(f"{type(module).__name__} has no {running.kernel} kernel that can be called from outside.")
    output, weights = call(module, given["query"], given["key"], given["value"], mask, *rest, **named)
    if isinstance(weights, torch.Tensor):
        running.listener.attention(module, {"pattern": weights}, named)
    return output, weights


def mask(*args: Any, **named: Any) -> Any:
    """The mask that belongs to the kernel."""
    return ALL_MASK_ATTENTION_FUNCTIONS[_listening().kernel](*args, **named)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, mask)


def switchable(model: PreTrainedModel) -> bool:
    """Whether the model's attention goes through the interface, under a kernel and mask that we can call."""
    kernel = model.config._attn_implementation
    return bool(model._can_set_attn_implementation()) and kernel in ("eager", "sdpa")


@contextmanager
def listening(model: PreTrainedModel, listener: Listener) -> Iterator[None]:
    """Switch the model to the listening attention, and back, whatever happens."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    found = {key: config._attn_implementation_internal for key, config in configs.items()}
    token = _running.set(Listening(str(model.config._attn_implementation), listener))
    try:
        for config in configs.values():
            config._attn_implementation_internal = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = found[key]
        _running.reset(token)


def unknown_keywords(named: Mapping[str, Any], expected: frozenset[str] = NEUTRAL) -> list[str]:
    """Keywords that were handed to the kernel with a value, that may change the result, and that the equations do not know of."""
    return sorted(
        name
        for name, value in named.items()
        if value is not None and not isinstance(value, bool) and name not in expected | {"scaling"}
    )
