"""What a model *is*, as frozen records: the tree that the site names walk.

A **record** holds the numbers of one part (`Attention`, `Norm`, …) and no arrays. A **block** is named norms and **branches**: each
branch says which *site* its matrices read and how its output enters the stream, so sequential, parallel, sandwich, attention-plus-mixer
and one-branch blocks are the same record with other data. Optional features are `None` or `False` until a family sets them.
`sizes` of a record are the lengths of the axes that it introduces; which weights it has is said by its fields, never by the file.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

Sizes: TypeAlias = dict[str, int]


@frozen
class Norm:
    """Divide by a root mean square; `centred` subtracts the mean first (layer norm). Weights are as multiplied: never `w - 1`."""

    eps: float
    """Added to the mean square, under the root."""
    centred: bool = False
    """Subtract the mean first: layer norm."""
    over: str = "d_model"
    """The axes of the mean and of the weight: `d_head` is per head, `head d_head` the whole width."""
    weight: bool = True
    """Whether a weight multiplies the quotient."""
    bias: bool = False
    """Whether a bias is added after it."""
    each: str = ""
    """Axes of the weight before `over`: `head` is a weight of its own for every head."""


@frozen
class Linear:
    """Rotary angles divided by `factor` (position interpolation, arXiv 2306.15595)."""

    factor: float
    """What positions are divided by."""


@frozen
class DynamicNtk:
    """A rotary base that grows once the prompt is longer than `context` (NTK-aware, as in transformers' `dynamic`)."""

    factor: float
    """How much longer the prompt may become."""
    context: int
    """Positions that the model was trained on."""


@frozen
class Yarn:
    """Frequencies stretched by `factor` where they turn less than `slow` times in `context` (arXiv 2309.00071, §3.2)."""

    factor: float
    """The stretch."""
    context: int
    """Positions that the model was trained on."""
    fast: float = 32.0
    """Turns in the context above which a pair is not stretched."""
    slow: float = 1.0
    """Turns below which it is stretched in full."""
    truncate: bool = True
    """Whether the bounds between them are rounded to whole pairs."""
    gain: float | None = None
    """Multiplies the rotated channels; None: `0.1 ln(factor) + 1` (eq. 22)."""


@frozen
class Llama3:
    """Llama 3.1's stretch: wavelengths over `context / low` by `factor`, under `context / high` not, in between smoothly."""

    factor: float
    """The stretch of long wavelengths."""
    low: float
    """Turns in the context below which a pair is stretched in full."""
    high: float
    """Turns above which it is not stretched."""
    context: int
    """Positions that the model was trained on."""


@frozen
class LongRope:
    """One stretch a frequency, `short` up to `context` and `long` beyond it (arXiv 2402.13753)."""

    short: tuple[float, ...]
    """Divisors of the frequencies within `context`."""
    long: tuple[float, ...]
    """Divisors beyond it."""
    context: int
    """Positions that the model was trained on."""
    gain: float = 1.0
    """Multiplies the rotated channels."""


Scaling: TypeAlias = Linear | DynamicNtk | Yarn | Llama3 | LongRope


@frozen
class Rotary:
    """Rotary position embedding of the leading `width` channels of every head (arXiv 2104.09864, §3.2)."""

    theta: float
    """The base of the frequencies."""
    width: int
    """Leading channels that are turned; even."""
    layout: Literal["half", "interleaved"] = "half"
    """Channel i is paired with i + width/2 (`half`) or 2i with 2i + 1 (`interleaved`)."""
    scaling: Scaling | None = None
    """How the frequencies are changed for long prompts."""


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


@frozen
class Mlp:
    """`act(x @ W_in) @ W_out`."""

    d_mlp: int
    """Channels between the matrices."""
    act: str
    """A name of `ACTIVATIONS`."""
    bias: bool = False
    """Whether both projections have one."""

    @property
    def sizes(self) -> Sizes:
        """`d_mlp`."""
        return {"d_mlp": self.d_mlp}


@frozen
class Clamp:
    """GPT-OSS: `act(min(pre, limit)) * (clip(pre_linear, ± limit) + offset)`."""

    limit: float
    """Of `pre` from above, of `pre_linear` on both sides."""
    offset: float = 1.0
    """Added to the linear half."""


@frozen
class GatedMlp:
    """`act(x @ W_gate) * (x @ W_in) @ W_out` (arXiv 2002.05202)."""

    d_mlp: int
    """Channels between the matrices."""
    act: str
    """A name of `ACTIVATIONS`."""
    bias: bool = False
    """Whether all three projections have one."""
    clamp: Clamp | None = None
    """Bounds on both halves before the product."""

    @property
    def sizes(self) -> Sizes:
        """`d_mlp`."""
        return {"d_mlp": self.d_mlp}


@frozen
class Shared:
    """An expert that every token takes; with `gated`, times `sigmoid(x @ W_shared_gate)`."""

    expert: GatedMlp
    """What it computes."""
    gated: bool = False
    """Whether a learned factor a token multiplies its output."""


@frozen
class Moe:
    """A router that picks `choices` of `experts` for each token and mixes their outputs."""

    experts: int
    """How many there are."""
    choices: int
    """How many each token takes."""
    expert: GatedMlp
    """What each of them is."""
    scoring: Literal["softmax", "topk_softmax", "sigmoid"] = "softmax"
    """Scores over all experts, before the choice (`softmax`, `sigmoid`), or over the chosen ones only (`topk_softmax`)."""
    renormalise: bool = False
    """The chosen scores are divided by their sum."""
    scale: float = 1.0
    """What the weights are multiplied by at last."""
    router_bias: bool = False
    """Whether the router's logits have a bias."""
    correction: bool = False
    """A bias is added to the scores for the choice only (DeepSeek-V3)."""
    shared: Shared | None = None
    """What every token takes besides."""

    @property
    def sizes(self) -> Sizes:
        """`expert`, `choice`, `d_mlp`, and `d_shared` where there are shared experts."""
        shared = {"d_shared": self.shared.expert.d_mlp} if self.shared else {}
        return {"expert": self.experts, "choice": self.choices, "d_mlp": self.expert.d_mlp} | shared


@frozen
class Mixer:
    """A state-space, linear-attention or convolution branch: captured, opaque to the equations."""

    kind: str
    """Its name in the field: `mamba`, `mamba2`, `gated_delta_net`, …"""


Module: TypeAlias = Attention | Mlp | GatedMlp | Moe | Mixer


@frozen
class Branch:
    """One contribution to the stream: `name_out = multiplier * post(module(reads))`."""

    name: str
    """`attn`, `mlp` or `mixer`."""
    reads: str
    """The site that the module's matrices read: `ln1.out`, or a stream site where there is no norm."""
    module: Module
    """What computes the contribution."""
    post: Norm | None = None
    """A norm of the module's output."""
    multiplier: float = 1.0
    """Of the contribution (Granite's residual multiplier)."""


@frozen
class PreNorm:
    """A norm of the stream that branches read; parallel branches may share it."""

    name: str
    """`ln1`, `ln2`."""
    reads: str
    """The stream site that it reads: `resid_pre` or `resid_mid`."""
    norm: Norm
    """What it computes."""


@frozen
class Block:
    """`resid_post = stream_scale * (resid_pre + contributions)`; `resid_mid` exists iff something reads it."""

    norms: tuple[PreNorm, ...]
    """By what they read; in no order."""
    branches: tuple[Branch, ...]
    """In the order in which they add to the stream."""
    stream_scale: float = 1.0
    """What the stream is multiplied by at the block's end."""

    def branch(self, name: str) -> Branch | None:
        """The branch of that name, if the block has it."""
        return next((branch for branch in self.branches if branch.name == name), None)

    @property
    def attention(self) -> Attention | None:
        """The record of the block's attention, if it has one."""
        return next((branch.module for branch in self.branches if isinstance(branch.module, Attention)), None)


@frozen
class Embedding:
    """`norm(scale * W_E[tokens])`."""

    scale: float = 1.0
    """Of the looked-up row."""
    norm: Norm | None = None
    """Of the scaled row."""


@frozen
class Positions:
    """Learned positions; OPT-like tables start at `offset`."""

    length: int
    """Rows of the table."""
    offset: int = 0
    """The row of the first position."""

    @property
    def sizes(self) -> Sizes:
        """`position`."""
        return {"position": self.length}


@frozen
class Unembedding:
    """`softcap(scale * (x @ W_U + b_U))`."""

    scale: float = 1.0
    """Of the logits, before the cap."""
    softcap: float | None = None
    """`cap * tanh(logits / cap)`."""
    bias: bool = False
    """Whether the logits have one."""
    tied: bool = False
    """`W_U` is the embedding, transposed."""


@frozen
class Sum:
    """A point of the residual stream: `scale` times the sum of what flows into it."""

    scale: float = 1.0
    """Of the sum."""


@frozen
class ModelSpec:
    """A decoder-only transformer, from tokens to logits."""

    family: str
    """`model_type` of transformers, or the name that a backend's format gives."""
    d_model: int
    """Width of the residual stream."""
    vocab: int
    """Rows of the embedding."""
    context: int | None
    """The longest prompt the model takes; None where it sets no limit."""
    blocks: tuple[Block, ...]
    """From first to last."""
    ln_final: Norm
    """Of the last `resid_post`."""
    embed: Embedding = Embedding()
    """How tokens enter the stream."""
    positions: Positions | None = None
    """Learned positions, where there are any."""
    unembed: Unembedding = Unembedding()
    """From the final norm to the logits."""

    @property
    def sizes(self) -> Sizes:
        """`d_model`, `vocab`: the axes that every part may use."""
        return {"d_model": self.d_model, "vocab": self.vocab}
