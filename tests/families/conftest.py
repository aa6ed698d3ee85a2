"""The other side of these tests: tiny seeded transformers models, and what their own modules say at each site.

**Tap**: a module's input or output, with its axes as it stands there, in the grammar of `families.native`.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from attrs import frozen

import llmtrace.schema  # noqa: F401
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.families.native import arrange
from llmtrace.schema.evaluate import Equations
from llmtrace.testing.tiny import write_tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]


def relative(found, expected) -> float:
    """The relative error of arrays that must have the same shape."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def run(checkpoint, tokens, wanted=None):
    """Sites by name, computed by the equations in float64."""
    equations = Equations(checkpoint.spec, checkpoint.weights)
    layers = range(len(checkpoint.spec.blocks))
    wanted = wanted or [f"blocks.{layer}.resid_pre" for layer in layers] + ["ln_final.out", "logits"]
    return dict(equations.run({"tokens": np.array(tokens), "positions": np.arange(len(tokens))}, wanted))


def states(model, tokens):
    """What transformers itself returns: hidden states and logits, under the names of `run`."""
    with torch.no_grad():
        output = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    *stream, last = [state[0].double().numpy() for state in output.hidden_states]
    named = {f"blocks.{layer}.resid_pre": state for layer, state in enumerate(stream)}
    return named | {"ln_final.out": last, "logits": output.logits[0].double().numpy()}


@pytest.fixture
def disagreement(tmp_path):
    """Write a tiny model, open it without transformers, run both; the worst relative error of hidden states and logits."""

    def measure(family, tokens=TOKENS, change=lambda spec: spec, **overrides):
        model = write_tiny(family, tmp_path, **overrides)
        checkpoint = open_checkpoint(tmp_path)
        equations = Equations(change(checkpoint.spec), checkpoint.weights)
        expected = states(model, tokens)
        found = dict(equations.run({"tokens": np.array(tokens), "positions": np.arange(len(tokens))}, list(expected)))
        return max(relative(found[site], expected[site]) for site in expected)

    return measure


@frozen
class Tap:
    """Where a site shows itself."""

    module: str
    port: str = "out"  # "in", "out", or the index of a tuple's element
    axes: str = ""  # as the site's own if empty
    piece: int = 0


def taps(module, **sites):
    """`site="child"` taps a child's output, `site="child<"` its input; `__` stands for a dot."""
    found = {}
    for site, child in sites.items():
        port = "in" if child.endswith("<") else "out"
        found["blocks.L." + site.replace("__", ".")] = Tap(f"{module}.{child.removesuffix('<')}".rstrip("."), port)
    return found


def qkv(module, axes):
    """q, k and v as pieces of a fused projection."""
    fused = (("q", "head", "d_head"), ("k", "kv_head", "d_head"), ("v", "kv_head", "d_value"))
    return {
        f"blocks.L.attn.{name}": Tap(module, "out", "token " + axes.format(h=h, d=d), i)
        for i, (name, h, d) in enumerate(fused)
    }


AT = "model.layers.L"
ENDS = {"ln_final.out": Tap("model.norm"), "logits": Tap("")}
ATTN = taps(
    AT,
    resid_pre="<",
    resid_post="",
    attn__q="self_attn.q_proj",
    attn__k="self_attn.k_proj",
    attn__z_post="self_attn.o_proj<",
    attn__out="self_attn.o_proj",
    mlp__out="mlp",
)
PRE = taps(AT, ln1__out="input_layernorm", resid_mid="post_attention_layernorm<", ln2__out="post_attention_layernorm")
SANDWICH = taps(
    AT, ln1__out="input_layernorm", resid_mid="pre_feedforward_layernorm<", ln2__out="pre_feedforward_layernorm"
)
POST = taps(AT, attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm")
POST |= {"blocks.L.attn_post.out": POST["blocks.L.attn_out"]}
GATED = taps(AT, mlp__pre="mlp.gate_proj", mlp__pre_linear="mlp.up_proj", mlp__post="mlp.down_proj<")
GATE_UP = {
    f"blocks.L.mlp.{n}": Tap(AT + ".mlp.gate_up_proj", "out", "token (d_mlp|d_mlp)", i)
    for i, n in enumerate(("pre", "pre_linear"))
}
HEAD_NORMS = taps(AT, attn__q_norm__out="self_attn.q_norm", attn__k_norm__out="self_attn.k_norm")
LLAMA = ATTN | PRE | GATED | ENDS


def routed(module):
    """A router returns logits, weights, indices."""
    return {
        f"blocks.L.mlp.{n}": Tap(f"{AT}.mlp.{module}", str(i))
        for i, n in enumerate(("router", "router_weights", "expert_index"))
    }


def plain(at, norms, fused, axes, dense, up, down, last):
    """Families with a plain MLP and one fused projection."""
    names = dict(zip(("ln1__out", "ln2__out"), norms.split(), strict=False))
    rest = {"attn__z_post": dense + "<", "attn__out": dense, "mlp__pre": up, "mlp__post": down + "<", "mlp__out": down}
    found = taps(at, resid_pre="<", resid_post="", **names, **rest)
    return found | qkv(f"{at}.{fused}", axes) | {"ln_final.out": Tap(last), "logits": Tap("")}


H, N = "transformer.h.L", "gpt_neox.layers.L"
SLOTS, THIRDS = "(head|kv_head|kv_head {d})", "({h} 1|1|1 {d})"
UP_DOWN = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
UNFUSED = {site: tap for site, tap in LLAMA.items() if not tap.module.endswith(("q_proj", "k_proj"))}
TAPS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA | HEAD_NORMS,
    "granite": LLAMA,
    "smollm3": LLAMA,
    "gemma": LLAMA,
    "gemma2": ATTN | SANDWICH | POST | GATED | ENDS,
    "gemma3_text": ATTN | SANDWICH | POST | GATED | ENDS,
    "olmo": {site: tap for site, tap in LLAMA.items() if site not in ("blocks.L.attn.q", "blocks.L.attn.k")},  # clamped in place
    "olmo2": ATTN | POST | GATED | ENDS | taps(AT, resid_mid="mlp<"),
    "mixtral": ATTN | PRE | ENDS | routed("gate"),
    "qwen2_moe": ATTN | PRE | ENDS | routed("gate"),
    "qwen3_moe": ATTN | PRE | ENDS | routed("gate"),
    "gpt_oss": ATTN | PRE | ENDS | routed("router"),
    "phi3": UNFUSED | GATE_UP | qkv(AT + ".self_attn.qkv_proj", SLOTS),
    "gpt2": plain(H, "ln_1 ln_2", "attn.c_attn", SLOTS, "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "transformer.ln_f")
    | taps(H, resid_mid="ln_2<"),
    "gpt_neox": plain(
        N, "input_layernorm post_attention_layernorm", "attention.query_key_value", THIRDS, "attention.dense", *UP_DOWN,
        "gpt_neox.final_layer_norm",
    ),
    "falcon": plain(H, "input_layernorm", "self_attention.query_key_value", SLOTS, "self_attention.dense", *UP_DOWN, "transformer.ln_f"),
}  # fmt: skip
EAGER = ("falcon",)
"""Families whose code takes no attention function, so that q and k after rotary, and patterns, do not show."""


def capture(model, checkpoint, family, tokens):
    """One forward pass; every site that a tap or the attention interface shows, by its full name, in the schema's axes."""
    steps = Equations(checkpoint.spec).steps
    found = {}
    modules, handles = dict(model.named_modules()), []

    def keep(site, tap, value):
        value = value[0 if not tap.port.isdigit() else int(tap.port)] if isinstance(value, tuple) else value
        value = value.logits if hasattr(value, "logits") else value
        step, array = steps[site], value.detach().numpy().copy()
        sizes = step.sizes | {"token": len(tokens)}
        found[site] = arrange(array.reshape(-1), tap.axes or " ".join(step.axes), step.axes, sizes, tap.piece)

    def hook(site, tap):
        return lambda module, inputs, output: keep(site, tap, inputs if tap.port == "in" else output)

    for pattern, tap in TAPS[family].items():
        for layer in range(len(checkpoint.spec.blocks)) if ".L." in pattern else [0]:
            site, module = (text.replace(".L", f".{layer}") for text in (pattern, tap.module))
            handles.append(modules[module].register_forward_hook(hook(site, tap)))

    def attend(module, query, key, value, mask, **named):
        output, weights = sys.modules[type(module).__module__].eager_attention_forward(
            module, query, key, value, mask, **named
        )
        at = f"blocks.{module.layer_idx}.attn."
        for name, tensor in (("rot_q", query), ("rot_k", key), ("v", value)):
            found[at + name] = tensor[0].transpose(0, 1).detach().numpy().copy()
        found[at + "pattern"], found[at + "z"] = weights[0].detach().numpy().copy(), output[0].detach().numpy().copy()
        return output, weights

    if family not in EAGER:
        transformers.AttentionInterface.register("oracle", attend)
        transformers.AttentionMaskInterface.register("oracle", transformers.masking_utils.eager_mask)
        model.set_attn_implementation("oracle")
    with torch.no_grad():
        model(torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture(scope="module", params=TAPS)
def captured(request, tmp_path_factory):
    """Of every tapped family: its name, the opened checkpoint, and what transformers' modules showed."""
    directory = tmp_path_factory.mktemp(request.param)
    model = write_tiny(request.param, directory)
    checkpoint = open_checkpoint(directory)
    return request.param, checkpoint, capture(model, checkpoint, request.param, TOKENS)
