"""How a block is wired. **Branch**: a module, the site that it reads, and how its output enters the stream; **module**: what it computes."""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from llmtrace.spec.attention import Attention
from llmtrace.spec.mlp import GatedMlp, Mlp, Moe
from llmtrace.spec.norm import Norm


@frozen
class Mixer:
    """A state-space, linear-attention or convolution branch: captured, opaque to the equations."""

    kind: str
    """Its name in the field: `mamba`, `mamba2`, `gated_delta_net`, …"""


Module: TypeAlias = Attention | Mlp | GatedMlp | Moe | Mixer


@frozen
class Branch:
    """One contribution to the stream: `name_out = multiplier * w * post(module(reads))`."""

    name: str
    """`attn`, `mlp` or `mixer`."""
    reads: str
    """The site that the module's matrices read: `ln1.out`, or a stream site where there is no norm. Of an opaque branch, which may read more
    besides, the last point of the stream before it."""
    module: Module
    """What computes the contribution."""
    post: Norm | None = None
    """A norm of the module's output."""
    multiplier: float = 1.0
    """Of the contribution (Granite's residual multiplier)."""
    weight: bool = field(default=False, kw_only=True)
    """Whether there is a learned factor a channel besides."""
    followed: bool = field(default=True, kw_only=True)
    """The contribution follows from the module's output; else it is captured, and opaque to the equations."""


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
class Carry:
    """What of the stream goes on where branches add to it: `scale * w * (x + b)`."""

    reads: str = ""
    """The norm's output that goes on in the stream's place, `ln1.out` (post-norm blocks); empty where the stream itself does."""
    scale: float = 1.0
    """One factor for all channels."""
    weight: bool = False
    """Whether there is a learned factor a channel."""
    bias: bool = False
    """Whether something learned is added to each channel before."""

    @property
    def factored(self) -> bool:
        """Whether it goes on as anything but itself."""
        return self.scale != 1 or self.weight or self.bias


@frozen
class Block:
    """`resid_post = stream_scale * (carry_post(resid_mid) + contributions)`, likewise `resid_mid` of `resid_pre`, which exists iff something
    reads it. Unless a block says otherwise the stream is carried on as it is.
    """

    norms: tuple[PreNorm, ...]
    """By what they read; in no order."""
    branches: tuple[Branch, ...]
    """In the order in which they add to the stream."""
    carry_pre: Carry = field(default=Carry(), kw_only=True)
    """What of the block before, or of the embedding, goes on into `resid_pre`; of no norm."""
    carry_mid: Carry = field(default=Carry(), kw_only=True)
    """What of `resid_pre` goes on into `resid_mid`."""
    carry_post: Carry = field(default=Carry(), kw_only=True)
    """What goes on into `resid_post`: of `resid_mid` where there is one, else of `resid_pre`."""
    stream_scale: float = 1.0
    """What the stream is multiplied by at the block's end."""

    def branch(self, name: str) -> Branch | None:
        """The branch of that name, if the block has it."""
        return next((branch for branch in self.branches if branch.name == name), None)

    @property
    def attention(self) -> Attention | None:
        """The record of the block's attention, if it has one."""
        return next((branch.module for branch in self.branches if isinstance(branch.module, Attention)), None)
