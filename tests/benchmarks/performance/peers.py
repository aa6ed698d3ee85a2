"""Other tools that record a transformers model, and how each is told to hold the sixteen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

Go = Callable[[], object]


@frozen
class Peer:
    """One tool."""

    name: str
    distribution: str
    """On the package index."""
    runs: Callable[[Path, list[int]], Mapping[str, Go]]
    """From a checkpoint and a prompt to what is timed, by name. The tool is imported here."""


def _loaded(path: Path, attention: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention)
    return loaded.eval()


def _nnsight(path: Path, ids: list[int]) -> Mapping[str, Go]:
    """As its users do: envoys of modules, and eager attention where patterns are wanted."""
    import torch
    from nnsight import NNsight  # type: ignore[import-not-found]  # in an environment of its own

    batch = torch.tensor([ids])
    eager, own = NNsight(_loaded(path, "eager")), NNsight(_loaded(path, "sdpa"))

    def run(model: Any, patterns: bool) -> object:
        kept: list[Any] = []
        with torch.no_grad(), model.trace(batch, use_cache=False):
            for layer in model.model.layers:
                kept.append(layer.input.save())
                kept.append(layer.input_layernorm.output.save())
                kept.append(layer.self_attn.q_proj.output.save())
                kept.append(layer.self_attn.k_proj.output.save())
                kept.append(layer.self_attn.v_proj.output.save())
                kept.append(layer.self_attn.o_proj.input.save())
                kept.append(layer.self_attn.o_proj.output.save())
                if patterns:
                    kept.append(layer.self_attn.output[1].save())
                kept.append(layer.post_attention_layernorm.input.save())
                kept.append(layer.post_attention_layernorm.output.save())
                kept.append(layer.mlp.gate_proj.output.save())
                kept.append(layer.mlp.up_proj.output.save())
                kept.append(layer.mlp.down_proj.input.save())
                kept.append(layer.mlp.output.save())
                kept.append(layer.output.save())
            kept.append(model.model.norm.output.save())
            kept.append(model.lm_head.output.save())
        return kept

    return {
        "nnsight, sixteen (eager attention)": lambda: run(eager, patterns=True),
        "nnsight, without patterns": lambda: run(own, patterns=False),
    }


def _transformer_lens(path: Path, ids: list[int]) -> Mapping[str, Go]:
    """Its bridge, which runs eager attention."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge  # type: ignore[import-not-found]
    from transformers import AutoTokenizer

    bridge = TransformerBridge.boot_transformers(
        str(path),
        hf_model=_loaded(path, "eager"),
        tokenizer=AutoTokenizer.from_pretrained(path),
        dtype=torch.float32,
        device="cpu",
    )
    batch = torch.tensor([ids])
    names = {
        "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "ln1.hook_out", "ln2.hook_out", "attn.hook_q", "attn.hook_k",
        "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "attn.hook_out", "mlp.hook_pre", "mlp.hook_pre_linear",
        "mlp.hook_post", "mlp.hook_out", "ln_final.hook_out",
    }  # fmt: skip

    def some(name: str) -> bool:
        return name.split(".", 2)[-1] in names or name in names or name == "unembed.hook_out"

    def run(chosen: Callable[[str], bool] | None) -> object:
        with torch.no_grad():
            return bridge.run_with_cache(batch, names_filter=chosen)

    return {
        "TransformerLens, everything": lambda: run(None),
        "TransformerLens, sixteen": lambda: run(some),
    }


PEERS = {
    peer.name: peer
    for peer in (
        Peer("nnsight", "nnsight", _nnsight),
        Peer("TransformerLens", "transformer-lens", _transformer_lens),
    )
}
