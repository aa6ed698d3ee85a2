"""TransformerLens's default processing, by its documentation, on our weights: an oracle that shares nothing with what recognises it."""

from __future__ import annotations

import numpy as np

from llmtrace.schema.evaluate import Equations


def processed(equations: Equations, *, layer_norm: bool) -> Equations:
    """`fold_ln`, `center_writing_weights` (layer norms only), `center_unembed` and `fold_value_biases`; for plain pre-norm blocks."""
    w = {name: np.array(array) for name, array in equations.weights.items()}

    def fold(norm: str, matrices: dict[str, str | None]) -> None:
        """A norm's weight goes into the rows of the matrices that read it, and its bias into their biases."""
        for matrix, bias in matrices.items():
            if bias is not None and layer_norm:
                w[bias] = w[bias] + np.tensordot(w[f"{norm}.b"], w[matrix], axes=([0], [w[matrix].ndim - 2]))
            w[matrix] = w[matrix] * w[f"{norm}.w"][:, None]
        w[f"{norm}.w"] = np.ones_like(w[f"{norm}.w"])
        if layer_norm:
            w[f"{norm}.b"] = np.zeros_like(w[f"{norm}.b"])

    for layer in range(len(equations.spec.blocks)):
        at = f"blocks.{layer}"
        attn, mlp = f"{at}.attn", f"{at}.mlp"
        fold(f"{at}.ln1", {f"{attn}.W_{each}": f"{attn}.b_{each}" for each in "QKV"})
        inward = {
            f"{mlp}.{name}": f"{mlp}.{bias}"
            for name, bias in [("W_in", "b_in"), ("W_gate", "b_gate")]
            if f"{mlp}.{name}" in w
        }
        fold(f"{at}.ln2", inward)
        repeats = w[f"{attn}.W_O"].shape[0] // w[f"{attn}.b_V"].shape[0]
        values = np.repeat(w[f"{attn}.b_V"], repeats, axis=0)
        w[f"{attn}.b_O"] = w[f"{attn}.b_O"] + np.einsum("hv,hvd->d", values, w[f"{attn}.W_O"])
        w[f"{attn}.b_V"] = np.zeros_like(w[f"{attn}.b_V"])
        writing = [f"{attn}.W_O", f"{attn}.b_O", f"{mlp}.W_out", f"{mlp}.b_out"]
        for name in writing if layer_norm else []:
            w[name] = w[name] - w[name].mean(-1, keepdims=True)
    for name in ["embed.W_E", "pos_embed.W_pos"] if layer_norm else []:
        w[name] = w[name] - w[name].mean(-1, keepdims=True)
    fold("ln_final", {"unembed.W_U": "unembed.b_U" if "unembed.b_U" in w else None})
    for name in {"unembed.W_U", "unembed.b_U"} & set(w):
        w[name] = w[name] - w[name].mean(-1, keepdims=True)
    return Equations(equations.spec, w)
