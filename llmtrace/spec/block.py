"""How a block is wired. **Branch**: a module, the site that it reads, and how its output enters the stream; **module**: what it computes."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

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
