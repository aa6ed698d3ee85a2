"""MLPs: plain, gated, and mixtures of **experts**, MLPs of which a router chooses a few for each token."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from llmtrace.spec.axes import Sizes
from llmtrace.spec.norm import Norm


@frozen
class Mlp:
    """`act(x @ W_in) @ W_out`."""

    d_mlp: int
    """Channels between the matrices."""
    act: str
    """A name of `ACTIVATIONS`; or `xielu`, which has four numbers among the weights (arXiv 2411.13010)."""
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
    inner_norm: Norm | None = None
    """A norm of the product, before `W_out`."""

    @property
    def sizes(self) -> Sizes:
        """`d_mlp`."""
        return {"d_mlp": self.d_mlp}


@frozen
class Shared:
    """An expert that every token takes; with `gated`, times `sigmoid(x @ W_shared_gate)`."""

    expert: GatedMlp | Mlp
    """What it computes."""
    gated: bool = False
    """Whether a learned factor a token multiplies its output."""


@frozen
class Groups:
    """Experts stand in groups, one after the other, and only those of the best groups may be chosen (DeepSeek-V2, arXiv 2405.04434, §2.2.2)."""

    count: int
    """How many groups there are, of as many experts each."""
    choices: int
    """How many of them experts are chosen from."""
    best: int = 1
    """A group is ranked by the sum of so many of its best experts."""


@frozen
class Moe:
    """A router that picks `choices` of `experts` for each token and mixes their outputs."""

    experts: int
    """How many there are."""
    choices: int
    """How many each token takes."""
    expert: GatedMlp | Mlp
    """What each of them is."""
    scoring: Literal["softmax", "topk_softmax", "sigmoid", "topk_sigmoid", "sparsemixer"] = "softmax"
    """Scores over all experts, before the choice (`softmax`, `sigmoid`), or of the chosen ones, chosen by their logits (`topk_softmax`,
    `topk_sigmoid`). `sparsemixer` (PhiMoE): each choice's share of a softmax over those not chosen before that are `near` it."""
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
    eps: float = 0.0
    """With `renormalise`, what is added to the sum of the chosen scores."""
    near: float = 0.0
    """With `sparsemixer`, by how much the logit of an expert that counts may be below the choice's, as a share of the larger size."""
    weighs: Literal["outputs", "inputs"] = "outputs"
    """What the weights multiply: what an expert makes, or what it reads (Llama 4)."""
    groups: Groups | None = None
    """Experts are chosen from some groups only."""

    @property
    def sizes(self) -> Sizes:
        """`expert`, `choice`, `d_mlp`, and `d_shared` where there are shared experts."""
        shared = {"d_shared": self.shared.expert.d_mlp} if self.shared else {}
        return {"expert": self.experts, "choice": self.choices, "d_mlp": self.expert.d_mlp} | shared
