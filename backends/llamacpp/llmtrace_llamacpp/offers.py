"""What a session offers of what was found, how finely it is rounded, and why the rest is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from llmtrace.protocol import Gap, Offer
from llmtrace.schema.precision import Precision
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import GatedMlp, Mlp, ModelSpec, Norm
from llmtrace.trace import CAPTURED, Provenance
from llmtrace_llamacpp.signals import recipe
from llmtrace_llamacpp.sites import Place

COARSER = ("", "float16", "bfloat16", "q8_0", "q8_k")
"""Types of operands, the coarser ones later."""
TABLED = ("gelu", "gelu_tanh", "gelu_new", "gelu_quick", "gelu_pytorch_tanh")
"""Activations that ggml looks up in a table of float16."""


def offers(
    spec: ModelSpec, places: Mapping[str, Place], stored: Mapping[str, str], fused: bool, cache: str
) -> dict[str, Offer]:
    """How each site is handed out. `fused`: flash attention computes; `cache`: the type of keys and values."""
    table = steps(spec)
    return {
        site: Offer(
            Provenance("converted", words) if (words := recipe(place)) else CAPTURED,
            precision(table[site], stored, fused or cache == "f16"),
        )
        for site, place in places.items()
    }


def precision(step: Step, stored: Mapping[str, str], halved: bool) -> Precision:
    """Of one site; `halved`: q, k, the pattern and v are rounded to float16 where they are multiplied."""
    if step.equation.integer:
        return Precision("int32", "float32")
    functions = "ggml_f16_table" if isinstance(step.record, Mlp | GatedMlp) and step.record.act in TABLED else ""
    if step.equation.name in ("pattern", "z") and halved:
        return Precision(operands="float16")
    kinds = [stored[weight.name] for weight in step.weights.values() if "W_" in weight.name and weight.name in stored]
    coarsest = max(map(_operands, kinds), key=COARSER.index, default="")
    return Precision(operands=coarsest, functions=functions)


def _operands(kind: str) -> str:
    """What ggml rounds the other factor to, by the type in which the matrix is stored."""
    plain = {"F32": "", "F16": "float16", "BF16": "bfloat16"}
    return (
        plain[kind]
        if kind in plain
        else "q8_k"
        if kind.endswith("_K") or (kind.startswith("IQ") and kind != "IQ4_NL")
        else "q8_0"
    )


def gaps(spec: ModelSpec, places: Collection[str], fused: bool) -> dict[str, Gap]:
    """Why each site that was not found is missing."""
    return {site: _gap(step, fused) for site, step in steps(spec).items() if site not in places}


def _gap(step: Step, fused: bool) -> Gap:
    name = step.equation.name
    if name == "result":
        return Gap("impossible", "the output matrix sums over heads, so no head's own part is ever computed")
    if name in ("scores", "pattern") and fused:
        return Gap("upstream", "flash attention keeps it to itself; flash_attn=off hands out the pattern")
    if name == "scores":
        return Gap("upstream", "llama.cpp multiplies, caps and masks them in one operation with the softmax")
    if isinstance(step.record, Norm):
        return Gap("upstream", "it stays inside the norm's kernel")
    return Gap("upstream", "no node of llama.cpp's graph holds it")
