"""Which types count: decoders.

A type counts not if its config says that it is the decoder of an encoder-decoder; if it is bidirectional, that is, if another last token
changes the logits before it; or if it is named below.
"""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.benchmarks.coverage.shrink import defaults

TYPES: tuple[str, ...] = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
NAMED = {
    "gemma4_assistant": "it drafts for another model and reads that one's states, not tokens alone",
    "gemma4_unified_assistant": "it drafts for another model and reads that one's states, not tokens alone",
    "trocr": "the decoder of an encoder-decoder, whose config does not say so",
}
"""What no rule tells."""
MOVED = 1e-4
"""Relative change of earlier logits from which a model is bidirectional."""


def excluded(kind: str) -> str:
    """Why a type does not count, as far as its config tells; empty where it may."""
    if kind in NAMED:
        return NAMED[kind]
    return "an encoder-decoder" if defaults(CONFIG_MAPPING[kind]).get("is_encoder_decoder") else ""


def bidirectional(model: PreTrainedModel, prompt: list[int]) -> bool:
    """Whether another last token changes the logits before it. Raises what the model raises."""
    logits = []
    for last in (prompt[-1], prompt[0]):
        with torch.no_grad():
            logits.append(model(torch.tensor([[*prompt[:-1], last]]), use_cache=False).logits[0, :-1])
    one, other = logits
    return bool((one - other).norm() > MOVED * one.norm())
