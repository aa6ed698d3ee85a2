"""How strongly one head's output can reach another's input, from weights alone (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits", section «Q-, K-, and V-composition»). **κ**: `√d_model` times the ratio, so that 1 is what heads whose bases are
rotated at random have.

    W_OV = W_V W_O, W_QK = W_Q W_Kᵀ (rows are vectors; a norm's weight is folded in for this calculation only)
    q: ‖W_OV¹ W_QK²‖ / ‖W_OV¹‖‖W_QK²‖     k: ‖W_OV¹ W_QK²ᵀ‖ / …     v: ‖W_OV¹ W_OV²‖ / ‖W_OV¹‖‖W_OV²‖        (Frobenius norms)

Under rotary embedding `W_QK` is that of equal positions. κ is geometry: it says what could flow, not what does.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.circuits.grammar import Edge, Node
from llmtrace.errors import SignalUnavailableError, UnsupportedModelError
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array
from llmtrace.spec import Norm


@frozen(eq=False)
class Factors:
    """A head's matrices as its products' factors, float64."""

    q: Array
    """[d_model d_head], with the weights of the norms before and after it."""
    k: Array
    """[d_model d_head]"""
    v: Array
    """[d_model d_value]"""
    o: Array
    """[d_value d_model]"""


class Composition:
    """κ of any edge between two heads of a model; each head's weights are read once."""

    def __init__(self, equations: Equations) -> None:
        self._equations = equations
        self._factors: dict[Node, Factors] = {}

    def kappa(self, edge: Edge) -> float:
        """Of an edge between heads.

        Raises `UnsupportedModelError` where a head's q, k and v are not products of what the stream holds, or what it hands on is none of v,
        `SignalUnavailableError` where the weights are not at hand.
        """
        one, two = self._of(edge.source), self._of(edge.target)
        pairs = {"q": (two.q, two.k), "k": (two.k, two.q), "v": (two.v, two.o.T)}
        reads, rest = pairs[edge.reads]
        through = _norm(one.v, one.o @ reads, rest)
        size = _norm(one.v, np.eye(one.v.shape[1]), one.o.T) * _norm(reads, np.eye(reads.shape[1]), rest)
        return float(np.sqrt(one.o.shape[1]) * through / size) if size else 0.0

    def _of(self, node: Node) -> Factors:
        if node not in self._factors:
            self._factors[node] = _factors(self._equations, node)
        return self._factors[node]


def _norm(left: Array, middle: Array, right: Array) -> float:
    """`‖left @ middle @ rightᵀ‖` by matrices of a head's width: `tr(LᵀL · M · RᵀR · Mᵀ)`."""
    square = np.trace(left.T @ left @ middle @ (right.T @ right) @ middle.T)
    return float(np.sqrt(max(square, 0.0)))


def _factors(equations: Equations, node: Node) -> Factors:
    layer, head = node.layer or 0, node.head or 0
    block = equations.spec.blocks[layer]
    branch, a = block.branch("attn"), block.attention
    if branch is None or a is None:
        raise UnsupportedModelError(f"{node}: block {layer} has no attention.")
    if not a.projected or a.q_latent or a.kv_latent:
        raise UnsupportedModelError(f"{node} makes its queries, keys or values in more than one product.")
    if not a.mixed:
        raise UnsupportedModelError(f"What {node} hands on does not follow from its values.")
    at, group = f"blocks.{layer}.", head // (a.heads // a.kv_heads)
    before = next((pre for pre in block.norms if f"{pre.name}.out" == branch.reads), None)
    scale = _weight(equations, f"{at}{before.name}.w", before.norm) if before else np.ones(1)
    after = _weight(equations, f"{at}attn_post.w", branch.post)

    def matrix(name: str, index: int) -> Array:
        step = equations.steps[f"{at}attn.{'out' if name == 'W_O' else name[-1].lower()}"]
        return np.asarray(equations.weight(step.weights[name])[index], np.float64)

    return Factors(
        scale[:, None] * matrix("W_Q", head) * _own(equations, f"{at}attn.q_norm.w", a.q_norm, head, a.d_head),
        scale[:, None] * matrix("W_K", group) * _own(equations, f"{at}attn.k_norm.w", a.k_norm, group, a.d_head),
        scale[:, None] * matrix("W_V", group),
        _own(equations, f"{at}attn.z_norm.w", a.z_norm, head, a.d_value)[:, None] * matrix("W_O", head) * after,
    )


def _weight(equations: Equations, name: str, norm: Norm | None) -> Array:
    if norm is None or not norm.weight:
        return np.ones(1)
    try:
        return np.asarray(equations.weights[name], np.float64)
    except KeyError:
        raise SignalUnavailableError(f"The weight {name} is not at hand.") from None


def _own(equations: Equations, name: str, norm: Norm | None, head: int, width: int) -> Array:
    """The weight of a norm of q, k or z, of one head, [width]."""
    weight = _weight(equations, name, norm)
    return weight if weight.size in (1, width) else weight.reshape(-1, width)[head]
