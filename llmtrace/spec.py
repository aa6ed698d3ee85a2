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


@frozen
class DynamicNtk:
    """A rotary base that grows once the prompt is longer than `context` (NTK-aware, as in transformers' `dynamic`)."""

    factor: float
    context: int


@frozen
class Yarn:
    """Frequencies stretched by `factor` where they turn less than `slow` times in `context` (arXiv 2309.00071, §3.2)."""

    factor: float
    context: int
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True
    gain: float | None = None
    """Multiplies the rotated channels; None: `0.1 ln(factor) + 1` (eq. 22)."""


@frozen
class Llama3:
    """Llama 3.1's stretch: wavelengths over `context / low` by `factor`, under `context / high` not, in between smoothly."""

    factor: float
    low: float
    high: float
    context: int


@frozen
class LongRope:
    """One stretch a frequency, `short` up to `context` and `long` beyond it (arXiv 2402.13753)."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    context: int
    gain: float = 1.0
    """Multiplies the rotated channels."""


Scaling: TypeAlias = Linear | DynamicNtk | Yarn | Llama3 | LongRope


@frozen
class Rotary:
    """Rotary position embedding of the leading `width` channels of every head (arXiv 2104.09864, §3.2)."""

    theta: float
    width: int
    layout: Literal["half", "interleaved"] = "half"
    """Channel i is paired with i + width/2 (`half`) or 2i with 2i + 1 (`interleaved`)."""
    scaling: Scaling | None = None


@frozen
class Gate:
    """`z_post = z * act(x @ W_gate)`, one factor a channel or one a head."""

    act: str = "sigmoid"
    per_head: bool = False


@frozen
class Attention:
    """Causal self-attention; query head h reads key/value head `h // (heads / kv_heads)`."""

    heads: int
    kv_heads: int
    d_head: int
    d_value: int
    scale: float
    """What `rot_q · rot_k` is multiplied by."""
    rotary: Rotary | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    v_norm: Norm | None = None
    """Applied to v as projected; has no weight."""
    norm_after_rotary: bool = False
    """q and k are normed after they are rotated."""
    clip: float | None = None
    """q, k and v are clamped to ± this value as projected."""
    softcap: float | None = None
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
    act: str
    bias: bool = False

    @property
    def sizes(self) -> Sizes:
        """`d_mlp`."""
        return {"d_mlp": self.d_mlp}


@frozen
class Clamp:
    """GPT-OSS: `act(min(pre, limit)) * (clip(pre_linear, ± limit) + offset)`."""

    limit: float
    offset: float = 1.0


@frozen
class GatedMlp:
    """`act(x @ W_gate) * (x @ W_in) @ W_out` (arXiv 2002.05202)."""

    d_mlp: int
    act: str
    bias: bool = False
    clamp: Clamp | None = None

    @property
    def sizes(self) -> Sizes:
        """`d_mlp`."""
        return {"d_mlp": self.d_mlp}


@frozen
class Shared:
    """An expert that every token takes; with `gated`, times `sigmoid(x @ W_shared_gate)`."""

    expert: GatedMlp
    gated: bool = False


@frozen
class Moe:
    """A router that picks `choices` of `experts` for each token and mixes their outputs."""

    experts: int
    choices: int
    expert: GatedMlp
    scoring: Literal["softmax", "topk_softmax", "sigmoid"] = "softmax"
    """Scores over all experts, before the choice (`softmax`, `sigmoid`), or over the chosen ones only (`topk_softmax`)."""
    renormalise: bool = False
    """The chosen scores are divided by their sum."""
    scale: float = 1.0
    """What the weights are multiplied by at last."""
    router_bias: bool = False
    correction: bool = False
    """A bias is added to the scores for the choice only (DeepSeek-V3)."""
    shared: Shared | None = None

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
    post: Norm | None = None
    multiplier: float = 1.0


@frozen
class PreNorm:
    """A norm of the stream that branches read; parallel branches may share it."""

    name: str
    reads: str
    norm: Norm


@frozen
class Block:
    """`resid_post = stream_scale * (resid_pre + contributions)`; `resid_mid` exists iff something reads it."""

    norms: tuple[PreNorm, ...]
    branches: tuple[Branch, ...]
    stream_scale: float = 1.0

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
    norm: Norm | None = None


@frozen
class Positions:
    """Learned positions; OPT-like tables start at `offset`."""

    length: int
    """Rows of the table."""
    offset: int = 0

    @property
    def sizes(self) -> Sizes:
        """`position`."""
        return {"position": self.length}


@frozen
class Unembedding:
    """`softcap(scale * (x @ W_U + b_U))`."""

    scale: float = 1.0
    softcap: float | None = None
    bias: bool = False
    tied: bool = False
    """`W_U` is the embedding, transposed."""


@frozen
class Sum:
    """A point of the residual stream: `scale` times the sum of what flows into it."""

    scale: float = 1.0


@frozen
class ModelSpec:
    """A decoder-only transformer, from tokens to logits."""

    family: str
    """`model_type` of transformers, or the name that a backend's format gives."""
    d_model: int
    vocab: int
    context: int | None
    """The longest prompt the model takes; None where it sets no limit."""
    blocks: tuple[Block, ...]
    ln_final: Norm
    embed: Embedding = Embedding()
    positions: Positions | None = None
    unembed: Unembedding = Unembedding()

    @property
    def sizes(self) -> Sizes:
        """`d_model`, `vocab`: the axes that every part may use."""
        return {"d_model": self.d_model, "vocab": self.vocab}
