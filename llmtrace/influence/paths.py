"""How source tokens flow through one attention. **Path**: what source token j sends through head h to query i.

With the pattern and every factor between z and the stream held fixed (the denominators of norms, the gates), attention is linear in
its values: `attn_out[i] = Σ_h,j path(h, i, j) + constant[i]`, the constant being what biases add. A bias of v, and a layer norm's bias
before it, are inside v and so credited to the tokens, weighted by the pattern (as in Kobayashi et al. 2020, arXiv 2004.10102, eq. 3).
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from llmtrace.errors import UnsupportedModelError, without_weights
from llmtrace.schema import norm
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import Array
from llmtrace.spec import Attention, Block, Branch, Mixer, ModelSpec


@frozen(eq=False)
class Paths:
    """One attention as a linear map of its values: `path(h, i, j) = mass[h, i, j] * (values[j, h] * gates[i, h]) @ W_O[h]`."""

    mass: Array
    """The pattern times each query's own factors, [head query key]."""
    values: Array
    """What each query head mixes, [key head d_value]."""
    gates: Array | None
    """Factors of single channels, [query head d_value], where the model has such a gate."""
    W_O: Array
    """Output matrix with the static factors after it, [head d_value d_model]."""
    constant: Array
    """What biases add to the stream at each query, [query d_model]."""

    def at(self, query: int) -> Paths:
        """The paths that end at one query."""
        gates = None if self.gates is None else self.gates[[query]]
        return Paths(self.mass[:, [query]], self.values, gates, self.W_O, self.constant[[query]])

    def towards(self, directions: Array) -> Array:
        """Every path's dot product with its query's direction ([query d_model]): [head query key]."""
        onto = self.W_O @ np.ascontiguousarray(directions.T)  # [head d_value query]
        if self.gates is not None:
            onto = onto * self.gates.transpose(1, 2, 0)
        return np.asarray(self.mass * (self.values.transpose(1, 0, 2) @ onto).transpose(0, 2, 1))


def stream_read(block: Block, branch: Branch) -> str:
    """The point of the stream that a branch reads, through its norm or directly: `resid_pre` or `resid_mid`."""
    return next((pre.reads for pre in block.norms if f"{pre.name}.out" == branch.reads), branch.reads)


def refuse_mixers(spec: ModelSpec, method: str) -> None:
    """Raise `UnsupportedModelError` if a branch moves information between tokens that no pattern shows."""
    for layer, block in enumerate(spec.blocks):
        for branch in block.branches:
            if isinstance(branch.module, Mixer):
                raise UnsupportedModelError(
                    f"{method} cannot follow tokens through this {spec.family} model: the branch {branch.name} of block {layer} is a "
                    f"{branch.module.kind}, which mixes tokens without a pattern. The method dla and the lens do not need one."
                )


def refuse_without_attention(spec: ModelSpec, method: str) -> None:
    """Raise `UnsupportedModelError` if no block has attention."""
    if not any(block.attention for block in spec.blocks):
        raise UnsupportedModelError(
            f"{method} needs attention patterns, and no block of this {spec.family} model has attention."
        )


def path_sites(spec: ModelSpec, layer: int) -> tuple[str, ...]:
    """The sites that `paths` reads; none where the block has no attention.

    Raises `UnsupportedModelError` where a centred norm between z and `W_O` spans the heads, which mixes them, and where it is not known what
    becomes of z, or of what the branch makes.
    """
    branch = spec.blocks[layer].branch("attn")
    if branch is None or not isinstance(a := branch.module, Attention):
        return ()
    if not a.mixed or not branch.followed:
        raise UnsupportedModelError(
            f"Block {layer} of this {spec.family} model does something to what its heads mix that no equation says, so that heads have no "
            "outputs of their own: this method cannot part it. Raw attention and rollout can be had."
        )
    if a.z_norm is not None and a.z_norm.centred and "head" in a.z_norm.over.split():
        raise UnsupportedModelError(
            f"Block {layer} of this {spec.family} model centres z over all heads before W_O, so that heads have no outputs of their own: "
            "this method cannot part it. Raw attention and rollout can be had."
        )
    at = f"blocks.{layer}."
    optional = {
        "attn.kept": a.sinks_after or None,
        "attn.z": a.z_norm,
        "attn.gate": a.gate,
        f"{branch.name}_post.scale": branch.post,
    }
    return (at + "attn.pattern", at + "attn.v", *(at + site for site, needed in optional.items() if needed is not None))


def paths(equations: Equations, layer: int, signals: Signals, dtype: type[np.floating] = np.float64) -> Paths:
    """The paths of one block's attention, from the sites that `path_sites` names and the weights."""
    branch = equations.spec.blocks[layer].branch("attn")
    if branch is None or not isinstance(a := branch.module, Attention):
        raise ValueError(f"block {layer} has no attention")
    at = f"blocks.{layer}."
    mass = signals[at + "attn.pattern"].astype(dtype)
    values = signals[at + "attn.v"].astype(dtype)
    W_O = weight(equations, at + "attn.W_O", dtype)
    shift, gates = np.zeros((1, a.heads, a.d_value), dtype), None
    if a.sinks_after:
        mass *= signals[at + "attn.kept"].astype(dtype)[:, :, None]
    if a.z_norm is not None:
        z, n = signals[at + "attn.z"].astype(dtype), a.z_norm
        mass *= (1 / norm.scale(n, z)).reshape(len(z), -1).T[:, :, None]
        values = values - values.mean(-1, keepdims=True) if n.centred else values
        if n.weight:
            W_O *= np.broadcast_to(weight(equations, at + "attn.z_norm.w", dtype), (a.heads, a.d_value))[..., None]
        if n.bias:
            shift = shift + weight(equations, at + "attn.z_norm.b", dtype)
    before = weight(equations, at + "attn.W_O", dtype) if a.z_norm is not None and a.z_norm.bias else W_O
    if a.gate is not None:
        gate = signals[at + "attn.gate"].astype(dtype)
        shift = shift * gate
        if a.gate.per_head:
            mass *= gate.transpose(1, 0, 2)
        else:
            gates = gate
    constant = shift.reshape(len(shift), -1) @ before.reshape(-1, W_O.shape[-1])
    if "O" in a.biases:
        constant = constant + weight(equations, at + "attn.b_O", dtype)
    constant = np.broadcast_to(constant, (len(values), W_O.shape[-1])).copy()
    if branch.post is not None:
        mass, W_O, constant = _through_post(equations, at, branch, signals, mass, W_O, constant)
    if branch.weight:
        w = weight(equations, f"{at}{branch.name}_out.w", dtype)
        W_O, constant = W_O * w, constant * w
    values = np.repeat(values, a.heads // a.kv_heads, axis=1)
    return Paths(mass, values, gates, branch.multiplier * W_O, branch.multiplier * constant)


def _through_post(
    equations: Equations, at: str, branch: Branch, signals: Signals, mass: Array, W_O: Array, constant: Array
) -> tuple[Array, Array, Array]:
    """The same through the norm after the branch, its denominator as captured."""
    n, name, dtype = branch.post, f"{at}{branch.name}_post", mass.dtype.type
    if n is None:
        return mass, W_O, constant
    sigma = signals[name + ".scale"].astype(dtype)  # [query 1]
    mass = mass / sigma.T[:, :, None]
    constant = constant / sigma
    if n.centred:
        W_O, constant = W_O - W_O.mean(-1, keepdims=True), constant - constant.mean(-1, keepdims=True)
    if n.weight:
        w = weight(equations, name + ".w", dtype)
        W_O, constant = W_O * w, constant * w
    return mass, W_O, constant + weight(equations, name + ".b", dtype) if n.bias else constant


def weight(equations: Equations, name: str, dtype: type[np.floating] = np.float64) -> Array:
    """A copy of a weight in `dtype`. Raises `CapabilityError` if the model has none of that name at hand."""
    if name not in equations.weights:
        raise without_weights(
            f"The weight {name} is not at hand (the backend has {len(equations.weights) or 'no'} others)"
        )
    # in C order, because products of transposed views are many times slower
    return np.asarray(equations.weights[name]).astype(dtype, order="C")
