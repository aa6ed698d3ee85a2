"""Attention: what makes q, k and v, what weighs them, and what stands between z and `W_O`."""

from __future__ import annotations

from attrs import frozen

from llmtrace.spec.axes import Sizes
from llmtrace.spec.norm import Norm
from llmtrace.spec.rotary import Rotary


@frozen
class Gate:
    """`z_post = z * act(x @ W_gate + b_gate)`, one factor a channel or one a head."""

    act: str = "sigmoid"
    """A name of `ACTIVATIONS`."""
    per_head: bool = False
    """One factor a head instead of one a channel."""
    bias: bool = False
    """Whether a number for each head is added before the activation."""


@frozen
class Latent:
    """A few channels that queries, or keys and values, are made of instead of the stream (multi-head latent attention, arXiv 2405.04434, §2.1)."""

    axis: str
    """`q_rank` or `kv_rank`."""
    rank: int
    """Channels."""
    norm: Norm | None = None
    """Of the latent, before it is projected."""
    bias: bool = False
    """Whether what is made of the stream has one, the shared channels of keys too."""

    @property
    def sizes(self) -> Sizes:
        """Its own axis."""
        return {self.axis: self.rank}


@frozen
class OpaqueHeads:
    """Queries, keys or values of which no equation says how they are made: captured, opaque to the equations."""

    axes: str
    """`token head d_head`, as the schema has them."""


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
    sinks_after: bool = False
    """The mass that sinks take is taken off z, whose pattern has rows that sum to 1."""
    masked: bool = False
    """What the tokens are makes numbers that are added to scores, and hides keys (`mask`): captured, opaque to the equations."""
    mixed: bool = True
    """`z_post` follows from z; else it is captured, and opaque to the equations."""
    z_norm: Norm | None = None
    """A norm between z and `W_O`."""
    gate: Gate | None = None
    """A gate between z (normed) and `W_O`."""
    biases: str = ""
    """Which of the projections have a bias, by letter: `QKV`, `QKVO`."""
    q_latent: Latent | None = None
    """What q is projected from, instead of what the branch reads."""
    kv_latent: Latent | None = None
    """What v and the leading channels of k are projected from."""
    shared: int = 0
    """Trailing channels of k that are projected from what the branch reads, and are the same in all heads (decoupled rotary keys, eq. 15)."""
    selective: bool = False
    """A query sees only keys that `selected` names, which what the tokens are decides (an indexer): captured, opaque to the equations."""
    projected: bool = True
    """q, k and v are each one product of what the branch reads; else `rot_q`, `rot_k` and v are captured, and opaque to the equations."""

    @property
    def sizes(self) -> Sizes:
        """`head`, `kv_head`, `d_head`, `d_value`; with latents their ranks, and the channels of a key that are its own and shared."""
        found = {"head": self.heads, "kv_head": self.kv_heads, "d_head": self.d_head, "d_value": self.d_value}
        for latent in filter(None, (self.q_latent, self.kv_latent)):
            found |= latent.sizes
        return found | ({"d_own": self.d_head - self.shared, "d_shared": self.shared} if self.kv_latent else {})
