"""What torch's exporters are given: a model as a function of tensors. **Past**: keys and values of earlier tokens, as inputs
`past_key_values.L.key` and `.value` [batch kv_head past d_head], with the outputs `present.L.key` and `.value`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from attrs import frozen

TRACED, PAST = 9, 3
"""Tokens and past of the example that is traced; no other size of the model is the same."""


@frozen
class Graph:
    """A module to export, an example of its inputs, and the names of both ends."""

    module: torch.nn.Module
    arguments: tuple[torch.Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    """Which axes of an input or output vary, and what they are called."""


class LogitsOnly(torch.nn.Module):
    """Tokens and mask to logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


class WithPast(torch.nn.Module):
    """Tokens, mask, positions and past to logits and present. With `last`, the logits of the last token only."""

    def __init__(self, model: Any, last: bool = False) -> None:
        super().__init__()
        self.model = model
        self.keep = {"logits_to_keep": 1} if last else {}

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> Any:
        cache = transformers.DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache, use_cache=True, **self.keep
        )  # fmt: skip
        layers = found.past_key_values.layers
        return found.logits, *(array for layer in layers for array in (layer.keys, layer.values))


def load(checkpoint: Path, attention: str) -> Any:
    """The checkpoint's model in float32. `attention` is `eager` or `sdpa`; experts are looked up, as the other ways cannot be exported."""
    auto: Any = transformers.AutoModelForCausalLM
    return auto.from_pretrained(
        checkpoint, attn_implementation=attention, dtype=torch.float32, experts_implementation="batched_mm"
    ).eval()


def without_past(checkpoint: Path, attention: str) -> Graph:
    """`input_ids`, `attention_mask` to `logits`."""
    tokens = torch.arange(3, 3 + TRACED)[None]
    names = ("input_ids", "attention_mask")
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "logits")}
    return Graph(LogitsOnly(load(checkpoint, attention)), (tokens, torch.ones_like(tokens)), names, ("logits",), axes)


def with_past(checkpoint: Path, attention: str, last: bool = False) -> Graph:
    """`input_ids`, `attention_mask`, `position_ids` and the past to `logits` and the present."""
    model = load(checkpoint, attention)
    tokens = torch.arange(3, 3 + TRACED)[None]
    module = WithPast(model, last)
    with torch.no_grad():
        layers = model(tokens[:, :PAST], use_cache=True).past_key_values.layers
    past = [array for layer in layers for array in (layer.keys, layer.values)]
    pairs = [f"{layer}.{kind}" for layer in range(len(layers)) for kind in ("key", "value")]
    names, presents = [f"past_key_values.{pair}" for pair in pairs], [f"present.{pair}" for pair in pairs]
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "position_ids", "logits")}
    axes["attention_mask"] = {0: "batch", 1: "total"}
    axes |= {name: {0: "batch", 2: "past"} for name in names} | {name: {0: "batch", 2: "total"} for name in presents}
    if last:
        axes["logits"] = {0: "batch"}
    mask = torch.ones(1, PAST + TRACED, dtype=torch.int64)
    arguments = (tokens, mask, torch.arange(PAST, PAST + TRACED)[None], *past)
    return Graph(
        module, arguments, ("input_ids", "attention_mask", "position_ids", *names), ("logits", *presents), axes
    )
