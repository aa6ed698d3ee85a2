"""From numbers to records: a piece of a graph is run on probes, and what it computes is named in the words of the spec.

Nothing here reads a node, a name or a file, and nothing imports a runtime: pieces come as functions of NumPy arrays, and go out as records,
or as `Unfit` with the reason.
"""

from __future__ import annotations

from llmtrace.dataflow.identify.activation import FoundActivation, find_activation
from llmtrace.dataflow.identify.capped import Capped, find_cap
from llmtrace.dataflow.identify.ends import Affine, find_affine, find_factor, find_offset
from llmtrace.dataflow.identify.gated import FoundGate, find_gated
from llmtrace.dataflow.identify.heads import HeadMap, Sharing, find_heads, shared
from llmtrace.dataflow.identify.kernel import FoundKernel, find_kernel
from llmtrace.dataflow.identify.maps import IndexMap, find_map
from llmtrace.dataflow.identify.measured import BFLOAT16, FLOAT16, FLOAT32, Unfit
from llmtrace.dataflow.identify.norm import FoundNorm, find_head_norm, find_norm
from llmtrace.dataflow.identify.rotary import find_rotary
from llmtrace.dataflow.identify.router import FoundRouter, find_router
from llmtrace.dataflow.identify.softmaxed import FoundSoftmax, find_softmax

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "Affine",
    "Capped",
    "FoundActivation",
    "FoundGate",
    "FoundKernel",
    "FoundNorm",
    "FoundRouter",
    "FoundSoftmax",
    "HeadMap",
    "IndexMap",
    "Sharing",
    "Unfit",
    "find_activation",
    "find_affine",
    "find_cap",
    "find_factor",
    "find_gated",
    "find_head_norm",
    "find_heads",
    "find_kernel",
    "find_map",
    "find_norm",
    "find_offset",
    "find_rotary",
    "find_router",
    "find_softmax",
    "shared",
]
