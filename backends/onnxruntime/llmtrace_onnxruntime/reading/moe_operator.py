"""Mixtures of experts that one operator does: its attributes say what an explicit graph shows. Choice, weights and halves are no values of
such a graph; what is claimed of it is held to what the operator makes of random rows and logits.

ONNX Runtime's contrib operators `MoE` and `QMoE`: `fc1` has a matrix [2 d_mlp, d_model] for each expert, both halves in it, or `fc1` one
and `fc3` the other; `fc2` [d_model, d_mlp].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from attrs import frozen

from llmtrace.schema import moe as equations
from llmtrace.schema.sites import Array
from llmtrace.spec import Clamp, GatedMlp, Moe
from llmtrace_onnxruntime.anatomy import MoeOperatorCell
from llmtrace_onnxruntime.constants import Source, bias, experts_matrix, matrix
from llmtrace_onnxruntime.forms import Form, Rows
from llmtrace_onnxruntime.graph import Vertex
from llmtrace_onnxruntime.identify.decimals import decimal
from llmtrace_onnxruntime.identify.ends import find_factor
from llmtrace_onnxruntime.identify.measured import Unfit
from llmtrace_onnxruntime.reading.moe import ReadMoe, read_shared
from llmtrace_onnxruntime.reading.reader import Reader, Unreadable

SWISH = {1.0: "silu", 1.702: "quick_gelu"}
"""`x * sigmoid(alpha * x)`, by alpha."""
PLACES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "MoE": {"fc1": (2, 3), "fc2": (4, 5), "fc3": (6, 7)},
    "QMoE": {"fc1": (2, 4), "fc2": (5, 7), "fc3": (8, 10)},
}
"""Where the operators read matrices and biases."""
UNKNOWN = {"MoE": 8, "QMoE": 11}
"""From where on they read what is not known here."""
ROWS, OFF, MOST = 32, 256, 0.03
"""Random rows; how many units of rounding the operator may be off on them; and how much at most, relative."""


@frozen(eq=False)
class Halves:
    """Matrices and biases by the schema's names, before the bias is known to be there."""

    weights: Mapping[str, Source]
    biased: bool


def read_moe_operator(reader: Reader, cell: MoeOperatorCell) -> ReadMoe:
    """What a mixture of experts is. Raises `Unreadable`."""
    vertex, line = cell.vertex, cell.line
    if (
        vertex.attributes.get("quant_type", b"int") != b"int"
        or any(vertex.reads[UNKNOWN[vertex.op] :])
        or vertex.attributes.get("use_sparse_mixer")
    ):
        raise Unreadable("its operator is given more than is known of it here")
    halves = _halves(reader, vertex)
    places: dict[str, tuple[str, Form]] = {"router": (line.makes, Rows()), "out": (cell.out, Rows())}
    weights = {"W_router": matrix(line, reader.constants), **halves.weights}
    if line.bias:
        weights["b_router"] = bias(line, reader.constants)
    arrays = {name: source.read() for name, source in halves.weights.items()}
    expert = _expert(vertex, arrays["W_out"].shape[1], halves.biased)
    normed = bool(vertex.attributes.get("normalize_routing_weights", 0))
    logits = reader.probe[line.makes].shape[-1]
    module = Moe(logits, int(vertex.attributes.get("k", 1)), expert, "softmax", normed, router_bias=bool(line.bias))
    _held(reader, cell, module, arrays)
    shared = read_shared(reader, cell.shared, places, weights)
    whole = Moe(
        module.experts, module.choices, expert, "softmax", normed, _scale(reader, cell), bool(line.bias), shared=shared
    )  # fmt: skip
    return ReadMoe(whole, places, weights)


def _halves(reader: Reader, vertex: Vertex) -> Halves:
    """The experts' matrices [expert in out] and biases."""
    places, fusion = PLACES[vertex.op], int(vertex.attributes.get("swiglu_fusion", 0))
    names = {"gate": ("fc1", _every_second(0)), "in": ("fc1", _every_second(1))}
    if not fusion:
        names = {"gate": ("fc1", _all), "in": ("fc3", _all)}
    elif fusion == 2:
        names = {"gate": ("fc1", _first_half), "in": ("fc1", _last_half)}
    if not vertex.reading(places[names["in"][0]][0]):
        raise Unreadable("its experts are not gated")
    found: dict[str, Source] = {}
    for suffix, (name, part) in {**names, "out": ("fc2", _all)}.items():
        place, biases = places[name]
        found[f"W_{suffix}"] = (
            experts_matrix(vertex, place, reader.constants).then(part).then(lambda array: array.swapaxes(1, 2))
        )
        if vertex.reading(biases):
            found[f"b_{suffix}"] = Source(
                vertex.reads[biases],
                lambda read=vertex.reads[biases], part=part: part(np.asarray(reader.constants[read])),
            )
    biased = [f"b_{suffix}" in found for suffix in ("gate", "in", "out")]
    if any(biased) != all(biased):
        raise Unreadable("some matrices of its experts have a bias and others have none")
    return Halves(found, biased[0])


def _every_second(first: int) -> Callable[[Array], Array]:
    return lambda array: array[:, first::2]


def _all(array: Array) -> Array:
    return array


def _first_half(array: Array) -> Array:
    return array[:, : array.shape[1] // 2]


def _last_half(array: Array) -> Array:
    return array[:, array.shape[1] // 2 :]


def _expert(vertex: Vertex, width: int, biased: bool) -> GatedMlp:
    """What an expert does between its matrices."""
    attributes = vertex.attributes
    name = attributes.get("activation_type", b"relu").decode()
    if name != "swiglu":
        return GatedMlp(width, name, biased)
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


def _held(reader: Reader, cell: MoeOperatorCell, m: Moe, w: Mapping[str, Array]) -> None:
    """Raise where the operator does not make of random rows what the record says."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, w["W_in"].shape[1])).astype(np.float16)
    logits = (2 * rng.normal(size=(ROWS, m.experts))).astype(np.float16)
    given = {
        name: array.reshape(*(1,) * (reader.probe[name].ndim - 2), ROWS, -1).astype(reader.probe[name].dtype)
        for name, array in ((cell.rows, x), (cell.logits, logits))
    }
    found = reader.pieces.run(given, (cell.makes,), ROWS)[cell.makes].reshape(ROWS, -1).astype(np.float64)
    x, logits = x.astype(np.float64), logits.astype(np.float64)
    index = equations.expert_index(m, logits)
    halves = (
        equations.pre(m, x, index, w["W_gate"], w.get("b_gate")),
        equations.pre_linear(m, x, index, w["W_in"], w.get("b_in")),
    )
    expected = equations.out(
        m, equations.post(m, *halves), equations.router_weights(m, logits, index), index, w["W_out"], w.get("b_out")
    )
    off = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not off <= min(OFF * reader.unit(cell.rows, cell.makes), MOST):
        raise Unreadable(
            f"its operator makes something else of random rows than its attributes say: it is off by {off:.2g}"
        )


def _scale(reader: Reader, cell: MoeOperatorCell) -> float:
    """What the experts' sum is multiplied by."""
    if not cell.scales:
        return 1.0
    first, last = cell.makes, cell.scales[-1].last
    found = find_factor(
        reader.rows(first, last), reader.probe[cell.out].shape[-1],
        candidates=reader.numbers(vertex for one in cell.scales for vertex in one.vertices), unit=reader.unit(last),
    )  # fmt: skip
    if isinstance(found, Unfit):
        raise Unreadable(f"its experts' sum is not multiplied by one number, because {found.why}")
    return found
