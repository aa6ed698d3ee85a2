"""MLPs: plain, gated, and mixtures of **experts**, gated MLPs of which a router chooses a few for each token."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from llmtrace.spec.axes import Sizes


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
