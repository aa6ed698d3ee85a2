"""A fault of transformers that a reader of a trace must know of: ALiBi of a Falcon under eager attention.

The model adds the bias to the mask for every kernel, and its eager attention adds it to the scores once more.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from llmtrace_torch.rotary import forgetful

NOTE = (
    "transformers adds ALiBi twice in a Falcon under attention=eager, to the mask and to the scores: its patterns are not what the model "
    "was trained with, and their equations do not hold. attention=sdpa adds it once"
)


def alibi_twice(model: PreTrainedModel) -> str:
    """The note, if what the model's first attention is given holds the bias twice: seen by running it, since transformers may mend it."""
    config = model.config
    if config.model_type != "falcon" or not config.alibi or config._attn_implementation != "eager":
        return ""
    given: dict[str, Any] = {}

    def look(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.update(kwargs)

    attention = next(module for name, module in model.named_modules() if name.endswith("h.0.self_attention"))
    handle = attention.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.no_grad(), forgetful(model.modules()):
            model(torch.tensor([[0, 1, 2]], device=model.device), use_cache=False)
    finally:
        handle.remove()
    mask = given.get("attention_mask")
    # the last query sees every key: all that its row of the mask can hold is a bias
    biased = isinstance(mask, torch.Tensor) and mask.is_floating_point() and bool(mask[..., -1, :].any())
    return NOTE if biased and given.get("alibi") is not None else ""
