"""Where sites show in a model of mlx-lm, as data. **Tap**: one side of a module, and how the signal lies in what passes there.

Where a weight lives is where a site shows: the module that holds `W_Q` puts out `q`, the one that holds `W_O` reads `z_post`. Under
which name a checkpoint stores each weight, and how heads lie in it, the core knows; mlx-lm calls its modules almost like that.
"""

from __future__ import annotations

import re
from collections.abc import Container

from attrs import frozen

from llmtrace.families.checkpoint import Checkpoint
from llmtrace.families.weights import Place
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import Norm
from llmtrace.trace import CAPTURED, Provenance

BLOCK = {"resid_pre": "in", "resid_post": "out"}
"""What goes through a whole block."""
INPUTS = {"attn.z": "attn.W_O", "attn.z_post": "attn.W_O", "resid_mid": "ln2.w", "mlp.post": "mlp.W_out"}
"""What the module with this weight reads."""
OUTPUTS = (
    "ln1.out", "attn.q", "attn.k", "attn.v", "attn.q_norm.out", "attn.k_norm.out", "attn.out", "attn_post.out",
    "ln2.out", "mlp.router", "mlp.pre", "mlp.pre_linear", "mlp.out", "mlp_post.out", "ln_final.out",
)  # fmt: skip
"""What the module puts out that holds the weight of the site's own equation."""


@frozen
class Tap:
    """Where one site shows."""

    module: str
    side: str
    """`in` or `out`."""
    axes: str
    """As they pass there, without the batch; `(head d_head)` is one axis."""
    piece: int = 0
    """Which piece, where q, k and v pass in one array."""

    @property
    def provenance(self) -> Provenance:
        """As it passes, or split: no value changes."""
        return Provenance("converted", f"split from {self.axes}") if "(" in self.axes else CAPTURED


def taps(checkpoint: Checkpoint, modules: Container[str]) -> dict[str, Tap]:
    """The sites that the modules of a loaded model show; `blocks.L` is its L-th block, the empty name the whole."""
    found = {} if checkpoint.spec.positions else {"embed": Tap("blocks.0", "in", "token d_model")}
    for site, step in steps(checkpoint.spec).items():
        block = f"blocks.{step.layer}"
        name = site.removeprefix(block + ".")
        if name in BLOCK:
            found[site] = Tap(block, BLOCK[name], "token d_model")
        elif name in INPUTS or name in OUTPUTS:
            own = next((weight.name for weight in step.weights.values()), "")
            place = checkpoint.weights.places[f"{block}.{INPUTS[name]}" if name in INPUTS else own]
            inner = place.names[0].rpartition(".")[0].replace("gpt_neox.layers.", "h.").replace("gpt_neox.", "")
            module = inner if inner.startswith(("model.", "lm_head")) else f"model.{inner}"
            if module in modules:  # experts are none: mlx-lm stacks them
                found[site] = Tap(module, "in" if name in INPUTS else "out", _axes(step, place), place.native.piece)
    return found | {"logits": Tap("", "out", "token vocab")}


def _axes(step: Step, place: Place) -> str:
    """As the stored matrix has them, without those of its other side."""
    if isinstance(step.record, Norm) or "d_model" in step.axes:
        return " ".join(step.axes)
    own = [axis for axis in re.findall(r"\([^)]*\)|\w+", place.native.axes) if axis != "d_model"]
    return " ".join(["token", *own])
