"""A tiny seeded model of a type, in which no weight is trivially zero or one."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.benchmarks.coverage.shrink import small

JITTER, FACTOR = 0.1, 3.0
"""What is added to vectors, and to matrices that are one number throughout, as a standard deviation; what other matrices are multiplied by."""


def tiny(kind: str, attention: str | None = None, seed: int = 0) -> PreTrainedModel:
    """A model of a type with a kernel of attention, or with transformers' own choice. Raises what transformers raises where it cannot."""
    torch.manual_seed(seed)
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small(kind), dtype=torch.float32, **chosen).eval()
    with torch.no_grad():
        stored = model.state_dict()  # of buffers too: a correction of a router's choice, a scale of a layer
        buffers = [buffer for name, buffer in model.named_buffers() if name in stored]
        for weight in (*model.parameters(), *buffers):
            if weight.is_floating_point():
                even = weight.ndim < 2 or bool((weight == weight.flatten()[:1]).all())
                _ = weight.add_(JITTER * torch.randn(weight.shape)) if even else weight.mul_(FACTOR)
    return model
