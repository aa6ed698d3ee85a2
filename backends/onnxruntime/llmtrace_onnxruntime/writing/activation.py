"""Activations: an operator where the style has one, else as torch's exporter spells them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from llmtrace.errors import UnsupportedModelError
from llmtrace_onnxruntime.writing.graph import Graph


def activation(graph: Graph, name: str, x: str) -> str:
    """`act(x)`. Raises `UnsupportedModelError` for one that is not written."""
    if name in graph.style.activations:
        op, attributes = graph.style.activations[name]
        return graph.op(op, x, attributes=attributes)
    if name not in SPELLED:
        raise UnsupportedModelError(f"The activation {name} is not written.")
    return SPELLED[name](graph, x)


def softcap(graph: Graph, x: str, cap: float | None) -> str:
    """`cap * tanh(x / cap)`; x where there is none."""
    if cap is None:
        return x
    return graph.op("Mul", graph.op("Tanh", graph.op("Div", x, graph.number(cap))), graph.number(cap))


def clip(graph: Graph, x: str, low: float | None, high: float | None) -> str:
    """Between two bounds, each of which may be absent."""
    bounds = ["" if bound is None else graph.number(bound) for bound in (low, high)]
    return graph.op("Clip", x, *bounds)


def scaled(graph: Graph, x: str, factor: float) -> str:
    """`factor * x`; x where that is one."""
    return x if factor == 1 else graph.op("Mul", x, graph.number(factor))


def _relu2(graph: Graph, x: str) -> str:
    y = graph.op("Relu", x)
    return graph.op("Mul", y, y)


def _swish(graph: Graph, x: str, alpha: float) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", scaled(graph, x, alpha)))


def _mish(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x)))


def _plus_one(graph: Graph, x: str) -> str:
    """`x + 1`"""
    return graph.op("Add", x, graph.number(1.0))


def _gelu(graph: Graph, x: str) -> str:
    share = _plus_one(graph, graph.op("Erf", graph.op("Div", x, graph.number(math.sqrt(2)))))
    return graph.op("Mul", graph.op("Mul", x, share), graph.number(0.5))


def _gelu_tanh(graph: Graph, x: str) -> str:
    cube = graph.op("Mul", graph.op("Pow", x, graph.number(3.0)), graph.number(0.044715))
    inner = graph.op("Mul", graph.op("Add", x, cube), graph.number(math.sqrt(2 / math.pi)))
    return graph.op("Mul", graph.op("Mul", x, graph.number(0.5)), _plus_one(graph, graph.op("Tanh", inner)))


def _laplace(graph: Graph, x: str) -> str:
    """Its constants are those of arXiv 2209.10655, as transformers has them."""
    turned = graph.op("Div", graph.op("Sub", x, graph.number(0.707107)), graph.number(0.282095 * math.sqrt(2)))
    return graph.op("Mul", _plus_one(graph, graph.op("Erf", turned)), graph.number(0.5))


SPELLED: Mapping[str, Callable[[Graph, str], str]] = {
    "identity": lambda graph, x: x,
    "relu": lambda graph, x: graph.op("Relu", x),
    "relu2": _relu2,
    "relu6": lambda graph, x: clip(graph, x, 0.0, 6.0),
    "leaky_relu": lambda graph, x: graph.op("LeakyRelu", x, attributes={"alpha": 0.01}),
    "silu": lambda graph, x: _swish(graph, x, 1.0),
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
    "tanh": lambda graph, x: graph.op("Tanh", x),
    "softplus": lambda graph, x: graph.op("Softplus", x),
    "mish": _mish,
    "quick_gelu": lambda graph, x: _swish(graph, x, 1.702),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "gelu_10": lambda graph, x: clip(graph, activation(graph, "gelu", x), -10.0, 10.0),
    "laplace": _laplace,
}
"""By the schema's name."""
