"""**Style**: whose operators a graph is made of: standard ones in torch's way, ONNX Runtime's in the way of its builder, or ONNX's newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from attrs import field, frozen

Attributes: TypeAlias = Mapping[str, int | float | str | list[int]]
"""Of a node, by name."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


@frozen
class Style:
    """Operators by what they do; empty where standard ones of opset 17 are put together."""

    opset: int = 17
    """Of the standard operators."""
    rms: str = ""
    """RMS norm."""
    skip: bool = False
    """Sums are fused with the norms that read them."""
    rotary: str = ""
    """Rotary embedding, where attention does not turn q and k itself."""
    attention: str = ""
    """From q, k and v to z."""
    experts: str = ""
    """From the router's logits to the mixture."""
    activations: Mapping[str, tuple[str, Attributes]] = field(factory=dict)
    """By the schema's name: an operator and its attributes."""


OWN = {
    "silu": (f"{MICROSOFT}.QuickGelu", {"alpha": 1.0}),
    "quick_gelu": (f"{MICROSOFT}.QuickGelu", {"alpha": 1.702}),
    "gelu": (f"{MICROSOFT}.Gelu", {}),
    "gelu_tanh": (f"{MICROSOFT}.FastGelu", {}),
}
STYLES: Mapping[str, Style] = {
    "plain": Style(),
    "fused": Style(
        rms="SimplifiedLayerNormalization",
        skip=True,
        rotary=f"{MICROSOFT}.RotaryEmbedding",
        attention=f"{MICROSOFT}.GroupQueryAttention",
        experts=f"{MICROSOFT}.MoE",
        activations=OWN,
    ),
    "multihead": Style(
        rms="SimplifiedLayerNormalization",
        skip=True,
        rotary=f"{MICROSOFT}.RotaryEmbedding",
        attention=f"{MICROSOFT}.MultiHeadAttention",
        activations=OWN,
    ),
    "onnx23": Style(
        opset=23,
        rms="RMSNormalization",
        rotary="RotaryEmbedding",
        attention="Attention",
        activations={"gelu": ("Gelu", {"approximate": "none"}), "gelu_tanh": ("Gelu", {"approximate": "tanh"})},
    ),
}
"""`plain`: as `torch.onnx.export` spells a model; `fused` and `multihead`: ONNX Runtime's operators; `onnx23`: the standard's newest."""
