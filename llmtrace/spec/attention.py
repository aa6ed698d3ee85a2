"""Attention: what makes q, k and v, what weighs them, and what stands between z and `W_O`."""

from __future__ import annotations

from attrs import frozen

from llmtrace.spec.axes import Sizes
from llmtrace.spec.norm import Norm
from llmtrace.spec.rotary import Rotary


@frozen
class Gate:
    """`z_post = z * act(x @ W_gate)`, one factor a channel or one a head."""

    act: str = "sigmoid"
    """A name of `ACTIVATIONS`."""
    per_head: bool = False
    """One factor a head instead of one a channel."""


@frozen
class Attention:
    """Causal self-attention; query head h reads key/value head `h // (heads / kv_heads)`."""

    heads: int
    """Query heads."""
    kv_heads: int
    """Key/value heads, shared evenly."""
    d_head: int
    """Channels of a query or key."""
    d_value: int
    """Channels of a value."""
    scale: float
    """What `rot_q · rot_k` is multiplied by."""
    rotary: Rotary | None = None
    """How positions turn q and k; None: not at all."""
    q_norm: Norm | None = None
    """Applied to q, per head or over the whole width."""
    k_norm: Norm | None = None
    """Applied to k."""
    v_norm: Norm | None = None
    """Applied to v as projected; has no weight."""
    norm_after_rotary: bool = False
    """q and k are normed after they are rotated."""
    clip: float | None = None
    """q, k and v are clamped to ± this value as projected."""
    softcap: float | None = None
    """`cap * tanh(scores / cap)`, before masking."""
    window: int | None = None
    """A query sees itself and `window - 1` tokens before it."""
    slopes: tuple[float, ...] = ()
    """ALiBi, one a head, as added after scaling (arXiv 2108.12409)."""
    sinks: bool = False
    """One learned logit a head that takes part in the softmax and reads no token."""
    z_norm: Norm | None = None
    """A norm between z and `W_O`."""
    gate: Gate | None = None
    """A gate between z (normed) and `W_O`."""
    biases: str = ""
    """Which of the projections have a bias, by letter: `QKV`, `QKVO`."""

    @property
    def sizes(self) -> Sizes:
        """`head`, `kv_head`, `d_head`, `d_value`."""
        return {"head": self.heads, "kv_head": self.kv_heads, "d_head": self.d_head, "d_value": self.d_value}
