"""What a model *is*, as frozen records: the tree that the site names walk.

A **record** holds the numbers of one part (`Attention`, `Norm`, …) and no arrays. A **block** is named norms and **branches**: each
branch says which *site* its matrices read and how its output enters the stream, so sequential, parallel, sandwich, attention-plus-mixer
and one-branch blocks are the same record with other data. Optional features are `None` or `False` until a family sets them.
`sizes` of a record are the lengths of the axes that it introduces; which weights it has is said by its fields, never by the file.
"""

from __future__ import annotations

from llmtrace.spec.attention import Attention, Gate, Latent, OpaqueHeads
from llmtrace.spec.axes import Sizes
from llmtrace.spec.block import Block, Branch, Carry, Mixer, Module, PreNorm
from llmtrace.spec.mlp import Clamp, GatedMlp, Groups, Mlp, Moe, Shared
from llmtrace.spec.model import Embedding, Head, ModelSpec, Positions, Sum, Unembedding
from llmtrace.spec.norm import Norm
from llmtrace.spec.rotary import DynamicNtk, Linear, Llama3, LongRope, Rotary, Scaling, Yarn

__all__ = [
    "Attention",
    "Block",
    "Branch",
    "Carry",
    "Clamp",
    "DynamicNtk",
    "Embedding",
    "Gate",
    "GatedMlp",
    "Latent",
    "Head",
    "Groups",
    "Linear",
    "Llama3",
    "LongRope",
    "Mixer",
    "Mlp",
    "ModelSpec",
    "Module",
    "Moe",
    "Norm",
    "OpaqueHeads",
    "Positions",
    "PreNorm",
    "Rotary",
    "Scaling",
    "Shared",
    "Sizes",
    "Sum",
    "Unembedding",
    "Yarn",
]
