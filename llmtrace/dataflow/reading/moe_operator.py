"""Mixtures of experts that one operator does: its attributes say what an explicit graph shows. Choice, weights and halves are no values of
such a graph; what is claimed of it is held to what the operator makes of random rows and logits.

ONNX Runtime's contrib operators `MoE` and `QMoE`: `fc1` has a matrix [2 d_mlp, d_model] for each expert, in which a row of the gated half is
followed by the same of the linear one, `fc2` [d_model, d_mlp]. Both halves one after the other, or in two matrices, are for GPUs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from attrs import evolve

from llmtrace.dataflow.constants import Source, bias, experts_matrix, matrix
from llmtrace.dataflow.forms import Form, Rows
from llmtrace.dataflow.graph import Vertex
from llmtrace.dataflow.identify.decimals import decimal
from llmtrace.dataflow.locating.anatomy_moe import MoeOperatorCell
from llmtrace.dataflow.reading.moe import ReadMoe, read_factor, read_shared
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.schema import moe as equations
from llmtrace.schema.sites import Array
from llmtrace.spec import Clamp, GatedMlp, Moe

SWISH = {1.0: "silu", 1.702: "quick_gelu"}
"""`x * sigmoid(alpha * x)`, by alpha."""
PLACES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "MoE": {"fc1": (2, 3), "fc2": (4, 5)},
    "QMoE": {"fc1": (2, 4), "fc2": (5, 7)},
}
"""Where the operators read matrices and biases."""
UNKNOWN = {"MoE": 6, "QMoE": 8}
"""From where on they read what is not known here."""
ROWS, OFF, MOST = 32, 256, 0.03
"""Random rows; how many units of rounding the operator may be off on them; and how much at most, relative."""


def read_moe_operator(reader: Reader, cell: MoeOperatorCell) -> ReadMoe:
    """What a mixture of experts is. Raises `Unreadable`."""
    vertex, line = cell.vertex, cell.line
    if (
        vertex.attributes.get("quant_type", b"int") != b"int"
        or any(vertex.reads[UNKNOWN[vertex.op] :])
        or vertex.attributes.get("use_sparse_mixer")
    ):
        raise Unreadable("its operator is given more than is known of it here")
    held, biased = _held_by(reader, vertex)
    places: dict[str, tuple[str, Form]] = {"router": (line.makes, Rows()), "out": (cell.out, Rows())}
    weights = {"W_router": matrix(line, reader.constants), **held}
    if line.bias:
        weights["b_router"] = bias(line, reader.constants)
    arrays = {name: source.read() for name, source in held.items()}
    expert = _expert(vertex, arrays["W_out"].shape[1], biased)
    experts, choices = reader.probe[line.makes].shape[-1], int(vertex.attributes.get("k", 1))
    normed = bool(vertex.attributes.get("normalize_routing_weights", 0))
    records = [Moe(experts, choices, expert, renormalise=each) for each in (normed, not normed)]
    found = _fitting(reader, cell, records, arrays)
    shared = read_shared(reader, cell.shared, places, weights)
    scale = read_factor(reader, cell.scales)
    module = evolve(found, scale=scale, router_bias=bool(line.bias), shared=shared)
    return ReadMoe(module, places, weights)


def _held_by(reader: Reader, vertex: Vertex) -> tuple[dict[str, Source], bool]:
    """The experts' matrices [expert in out] and biases, and whether there are biases."""
    if vertex.attributes.get("activation_type") != b"swiglu" or vertex.attributes.get("swiglu_fusion") != 1:
        raise Unreadable("its operator's experts are not gated, or their halves do not alternate")
    places = PLACES[vertex.op]
    names = {"gate": ("fc1", slice(0, None, 2)), "in": ("fc1", slice(1, None, 2)), "out": ("fc2", slice(None))}
    found: dict[str, Source] = {}
    for suffix, (both, part) in names.items():
        place, biases = places[both]
        matrices = experts_matrix(vertex, place, reader.constants).then(partial(_part, part))
        found[f"W_{suffix}"] = matrices.then(lambda array: array.swapaxes(1, 2))
        if name := vertex.reading(biases):
            found[f"b_{suffix}"] = Source(name, partial(_read_bias, reader, name, part))
    biased = [f"b_{suffix}" in found for suffix in ("gate", "in", "out")]
    if any(biased) != all(biased):
        raise Unreadable("some matrices of its experts have a bias and others have none")
    return found, biased[0]


def _read_bias(reader: Reader, name: str, part: slice) -> Array:
    return _part(part, np.asarray(reader.constants[name]))


def _part(part: slice, array: Array) -> Array:
    """Some of what each expert puts out, of matrices [expert out in] or biases [expert out]."""
    return array[:, part]


def _expert(vertex: Vertex, width: int, biased: bool) -> GatedMlp:
    """What an expert does between its matrices."""
    attributes = vertex.attributes
    alpha, offset = (
        decimal(float(attributes.get(f"activation_{each}", value))) for each, value in (("alpha", 1.0), ("beta", 0.0))
    )
    if alpha not in SWISH or attributes.get("swiglu_limit_after_activation"):
        raise Unreadable(f"the activation of its experts, with alpha {alpha:.6g}, is none that is known")
    if "swiglu_limit" in attributes:
        return GatedMlp(width, SWISH[alpha], biased, Clamp(decimal(float(attributes["swiglu_limit"])), offset))
    if offset:
        raise Unreadable(f"{offset:.6g} is added to the linear half of its experts and nothing bounds it")
    return GatedMlp(width, SWISH[alpha], biased)


def _fitting(reader: Reader, cell: MoeOperatorCell, records: Sequence[Moe], w: Mapping[str, Array]) -> Moe:
    """The record that says what the operator makes of random rows: what `normalize_routing_weights` means depends on the operator."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, w["W_in"].shape[1])).astype(np.float16)
    logits = (2 * rng.normal(size=(ROWS, records[0].experts))).astype(np.float16)
    given = {name: reader.native(name, array) for name, array in ((cell.rows, x), (cell.logits, logits))}
    found = reader.pieces.run(given, (cell.makes,), ROWS)[cell.makes].reshape(ROWS, -1).astype(np.float64)
    nearest = np.inf
    for m in records:
        expected = _expected(m, x.astype(np.float64), logits.astype(np.float64), w)
        off = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if off <= min(OFF * reader.unit(cell.rows, cell.makes), MOST):
            return m
        nearest = min(nearest, off)
    raise Unreadable(
        f"its operator makes something else of random rows than its attributes say: it is off by {nearest:.2g}"
    )


def _expected(m: Moe, x: Array, logits: Array, w: Mapping[str, Array]) -> Array:
    """What the equations make of rows and of a router's logits."""
    index = equations.expert_index(m, logits)
    gate = equations.pre(m, x, index, w["W_gate"], w.get("b_gate"))
    linear = equations.pre_linear(m, x, index, w["W_in"], w.get("b_in"))
    chosen = equations.router_weights(m, logits, index)
    return equations.out(m, equations.post(m, gate, linear), chosen, index, w["W_out"], w.get("b_out"))
