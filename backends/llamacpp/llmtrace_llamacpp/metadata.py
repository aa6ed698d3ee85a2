"""From a GGUF file's metadata to a `ModelSpec`: what llama.cpp computes from the file, which may be less than its authors meant.

The metadata are put into the terms of a `config.json` (`architectures.py` has the keys), the core's families make a spec of it, and
what only the file decides comes last: which biases there are, what is tied, and how the rotary embedding is stretched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import evolve

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown, suggest
from llmtrace.families import family as family_of
from llmtrace.families import spec_of as spec_of_config
from llmtrace.families.native import Family, native_of
from llmtrace.gguf_header import Header
from llmtrace.schema.sound import sound
from llmtrace.spec import Attention, Block, Branch, GatedMlp, Mlp, ModelSpec, Moe, Norm
from llmtrace_llamacpp.architectures import ARCHITECTURES, KEYS, SAID, Architecture
from llmtrace_llamacpp.names import stored_in
from llmtrace_llamacpp.refused import why_not
from llmtrace_llamacpp.rope import stretched

BLOCK = re.compile(r"^blk\.(\d+)\.")
Scoring = Literal["softmax", "topk_softmax", "sigmoid"]
GATING: Mapping[Any, Scoring] = {1: "softmax", 2: "sigmoid"}
"""How llama.cpp scores experts, by its number."""
SHARED_OUT = ("qwen2moe", "qwen3moe", "qwen3vlmoe", "glm4moe")
"""Architectures whose experts share the width of the MLP out among them, where the file does not say theirs."""
SECTIONS = "rope.dimension_sections"
LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, which llama.cpp knows by them: their scores are scaled by an equal share of the width."""


def spec_of(header: Header) -> ModelSpec:
    """What llama.cpp computes from a file.

    Raises `UnsupportedModelError` for an architecture or feature that the equations do not express or that is not in the table, and
    `ModelOpenError` for metadata that are incomplete or contradict themselves or the tensors.
    """
    return described(header)[0]


def described(header: Header) -> tuple[ModelSpec, Family]:
    """The spec, and the family with the names that the file's tensors have. Raises as `spec_of` does."""
    config = config_of(header)
    try:
        spec, row = spec_of_config(config), family_of(config)
    except ModelOpenError as error:
        raise type(error)(f"{header.path}, whose metadata are read as a config.json: {error}") from error
    family = stored_in(row, spec, header.tensors, header.metadata[f"{header.architecture}.block_count"])
    architecture = ARCHITECTURES[header.architecture]
    blocks = tuple(
        _as_stored(stretched(block, header, architecture), layer, header, family)
        for layer, block in enumerate(spec.blocks)
    )
    unembed = evolve(spec.unembed, tied="output.weight" not in header.tensors, bias="output.bias" in header.tensors)
    final = _norm(spec.ln_final, "ln_final", header, family)
    spec = evolve(spec, blocks=blocks, ln_final=final, unembed=unembed, context=_context(header, spec.context))
    return sound(spec, str(header.path)), family


def _context(header: Header, longest: int | None) -> int | None:
    """The longest prompt that the equations hold for: beyond the original context, Ministral sharpens attention by the position."""
    name = header.architecture
    trained = header.metadata.get(f"{name}.rope.scaling.original_context_length")
    if name != "mistral3" or not header.metadata.get(f"{name}.attention.temperature_scale") or type(trained) is not int:
        return longest
    return min(trained, longest or trained)


def config_of(header: Header) -> dict[str, Any]:
    """The metadata as a `config.json` would say it. Raises as `spec_of` does."""
    name = header.architecture
    if name not in ARCHITECTURES and (why := why_not(name)):
        raise UnsupportedModelError(f"{header.path} is of the architecture {name}: {why}.")
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{header.path} is of the architecture {shown(name)}, which is not in the table.{suggest(name[:60], ARCHITECTURES)} Known are "
            f"{', '.join(ARCHITECTURES)}."
        )
    architecture = ARCHITECTURES[name]
    _check_finite(header)
    _check_kind(header)
    config: dict[str, Any] = {**SAID, **architecture.says}
    for key, own in {**KEYS, **architecture.keys}.items():
        value = scalar(header, own)
        if value is not None and not (key == "sliding_window" and key in architecture.says):
            config[key] = value
    config["model_type"] = _family(architecture, config)
    config["vocab_size"] = _extent(header, "token_embd.weight", 1)
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["num_hidden_layers"] = _layers(header)
    if architecture.period:  # llama.cpp has windows for it
        window = scalar(header, "attention.sliding_window")
        config["sliding_window"] = architecture.window if window is None else window
        config["layer_types"] = _layer_types(header, architecture, config)
    if (value := config.get("head_dim")) is None and config.get("hidden_size") and config.get("num_attention_heads"):
        config["head_dim"] = value = config["hidden_size"] // config["num_attention_heads"]
    return config | _by_tensors(header, config)


def scalar(header: Header, key: str) -> Any:
    """The file's value of one of its architecture's keys; None where it says none. One value a layer must be the same in all.

    Raises `UnsupportedModelError` where layers differ.
    """
    full = f"{header.architecture}.{key}"
    if full not in header.arrays:
        return header.metadata.get(full)
    values = header.array(full)[: _layers(header)]
    if not values or any(value != values[0] for value in values):
        raise UnsupportedModelError(
            f"{header.path} says {full} layer by layer, and not the same in all: {shown(values)}. That is not expressed yet."
        )
    return values[0]


def _family(architecture: Architecture, config: Mapping[str, Any]) -> str:
    if architecture.windowed and config.get("sliding_window"):
        return architecture.windowed
    if architecture.shared and config.get("shared_intermediate_size"):
        return architecture.shared
    return architecture.mixture if architecture.mixture and config.get("num_experts") else architecture.family


def _by_tensors(header: Header, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says in words and a file by the tensors that it has, or llama.cpp by the size of the model."""
    there, name, d_head = header.tensors, header.architecture, config.get("head_dim")
    found: dict[str, Any] = {}
    if "position_embd.weight" in there:
        found["max_position_embeddings"] = _extent(header, "position_embd.weight", 1)
    if name == "stablelm":
        found = {
            "use_parallel_residual": "blk.0.ffn_norm.weight" not in there,
            "qk_layernorm": "blk.0.attn_q_norm.weight" in there,
        }
    if name == "command-r":
        found = {"use_qk_norm": "blk.0.attn_q_norm.weight" in there}
    if name == "falcon":
        found = {"num_ln_in_parallel_attn": 2 if "blk.0.attn_norm_2.weight" in there else 1}
    if name in ("gemma2", "gemma3"):
        large = config["num_hidden_layers"] == LARGEST[name] and config.get("num_attention_heads")
        found = {"query_pre_attn_scalar": config["hidden_size"] // config["num_attention_heads"] if large else d_head}
    if name == "mpt":
        bias = header.metadata.get("mpt.attention.max_alibi_bias", 0.0)
        clip = header.metadata.get("mpt.attention.clamp_kqv")
        found |= {"attn_config": {"alibi": bias > 0, "alibi_bias_max": bias or 8, "clip_qkv": clip or None}}
    if name == "glm4moe":
        found = {"use_qk_norm": "blk.0.attn_q_norm.weight" in there}
    if name == "minicpm":
        found = {"attention_multiplier": d_head**-0.5} if d_head else {}
        found |= {key: value for key, value in _minicpm(config).items() if config.get(key) is None}
    if name in ("granite", "granitemoe") and not config.get("attention_multiplier") and d_head:
        found = {"attention_multiplier": d_head**-0.5}
    if name in SHARED_OUT and config.get("moe_intermediate_size") is None and config.get("num_experts_per_tok"):
        found |= {"moe_intermediate_size": config.get("intermediate_size", 0) // config["num_experts_per_tok"]}
    if name == "qwen2moe" and config.get("shared_expert_intermediate_size") is None:
        found |= {"shared_expert_intermediate_size": config.get("intermediate_size")}
    return found


def _minicpm(config: Mapping[str, Any]) -> dict[str, float]:
    """What llama.cpp takes for the scales of a file that was made before files said them."""
    layers, width = config["num_hidden_layers"], config.get("hidden_size") or 1
    return {"embedding_multiplier": 12.0, "residual_multiplier": 1.4 * layers**-0.5, "logits_scaling": 256 / width}


def _layer_types(header: Header, architecture: Architecture, config: dict[str, Any]) -> list[str]:
    """Which layers have a window: by the file's list, or all but the last of each period."""
    count = config["num_hidden_layers"]
    key = f"{header.architecture}.attention.sliding_window_pattern"
    if architecture.windowed_layers not in (None, count) or (not config["sliding_window"] and architecture.may_be_none):
        config["sliding_window"] = None
        slides = [False] * count
    elif key in header.arrays:
        slides = [bool(value) for value in header.array(key)]
    else:
        period = header.metadata.get(key, architecture.period)
        if type(period) is not int or period < 0:
            raise ModelOpenError(f"{header.path} says {key} = {shown(period)}; it must be a whole number.")
        slides = [period == 0 or layer % period < period - 1 for layer in range(count)]
    if any(slides) and not config["sliding_window"]:
        raise ModelOpenError(
            f"{header.path} says a window of {shown(config['sliding_window'])} tokens, through which llama.cpp sees nothing: convert it "
            "again."
        )
    if config["sliding_window"] and not any(slides):
        raise ModelOpenError(
            f"{header.path} says a window of {shown(config['sliding_window'])} tokens, and gives it to no layer, of which llama.cpp would "
            "die. Convert it again."
        )
    return ["sliding_attention" if slide else "full_attention" for slide in slides]


def _layers(header: Header) -> int:
    """How many blocks the stream runs through; what is announced is there, before anything is made for each layer."""
    key = f"{header.architecture}.block_count"
    announced = header.metadata.get(key)
    there = {int(found[1]) for found in map(BLOCK.search, header.tensors) if found}
    if type(announced) is not int or announced < 1 or there != set(range(len(there))) or announced != len(there):
        raise ModelOpenError(
            f"{header.path} says {shown(key)} = {shown(announced)}, and has tensors of {len(there)} blocks."
        )
    key = f"{header.architecture}.nextn_predict_layers"
    spare = header.metadata.get(key, 0) if ARCHITECTURES[header.architecture].spare else 0
    if type(spare) is not int or not 0 <= spare < announced:
        raise ModelOpenError(f"{header.path} says {shown(key)} = {shown(spare)}, of {announced} blocks in all.")
    return announced - spare


def _extent(header: Header, tensor: str, axis: int) -> int:
    """The length of one axis of a tensor, the fastest first."""
    if tensor not in header.tensors or len(header.tensors[tensor].shape) <= axis:
        raise ModelOpenError(
            f"{header.path} lacks the tensor {tensor}, a matrix: it is no language model, or a part of one."
        )
    return header.tensors[tensor].shape[axis]


def _check_finite(header: Header) -> None:
    for key, value in header.metadata.items():
        if isinstance(value, float) and not math.isfinite(value) and key.startswith(f"{header.architecture}."):
            raise ModelOpenError(f"{header.path} says {shown(key)} = {value}, which is no finite number.")


def _check_kind(header: Header) -> None:
    """Refuse what llama.cpp does for files of any architecture, and the equations do not express."""
    name = header.architecture
    if header.metadata.get(f"{name}.attention.causal", True) is False:
        raise UnsupportedModelError(
            f"{header.path} says {name}.attention.causal = false: attention in both directions is not expressed by the equations."
        )
    if name == "glm4" and any(header.array(f"{name}.{SECTIONS}") if f"{name}.{SECTIONS}" in header.arrays else ()):
        raise UnsupportedModelError(
            f"{header.path} says {name}.{SECTIONS}: a rotary embedding of several positions a token is not expressed by the equations."
        )
    if (groups := header.metadata.get(f"{name}.expert_group_count", 0)) not in (0, 1):
        raise UnsupportedModelError(
            f"{header.path} says {name}.expert_group_count = {shown(groups)}: experts that are chosen by groups are not expressed by the "
            "equations."
        )


def _there(weight: str, header: Header, family: Family) -> bool:
    """Whether the file has the tensor of a schema weight."""
    return native_of(family, weight)[1][0] in header.tensors


def _as_stored(block: Block, layer: int, header: Header, family: Family) -> Block:
    """With the biases that the file has."""
    norms = tuple(
        evolve(one, norm=_norm(one.norm, f"blocks.{layer}.{one.name}", header, family)) for one in block.norms
    )
    return evolve(
        block, norms=norms, branches=tuple(_branch(branch, layer, header, family) for branch in block.branches)
    )


def _norm(norm: Norm, address: str, header: Header, family: Family) -> Norm:
    return evolve(norm, bias=_there(f"{address}.b", header, family)) if norm.weight else norm


def _branch(branch: Branch, layer: int, header: Header, family: Family) -> Branch:
    module, at = branch.module, f"blocks.{layer}.{branch.name}"
    if isinstance(module, Attention):
        biases = "".join(letter for letter in "QKVO" if _there(f"{at}.b_{letter}", header, family))
        d_value = scalar(header, "attention.value_length")
        return evolve(
            branch, module=evolve(module, biases=biases, d_value=module.d_head if d_value is None else d_value)
        )
    if isinstance(module, Mlp | GatedMlp):
        names = ["in", "out"] + (["gate"] if isinstance(module, GatedMlp) else [])
        there = {_there(f"{at}.b_{name}", header, family) for name in names}
        if len(there) > 1:
            raise UnsupportedModelError(
                f"{header.path} has biases for some matrices of the MLP of block {layer} and not for others, which is not expressed."
            )
        act = "gelu_tanh" if module.act == "gelu" else module.act  # llama.cpp has no other
        return evolve(branch, module=evolve(module, bias=there.pop(), act=act))
    if isinstance(module, Moe) and module.correction:
        kind = scalar(header, "expert_gating_func") or ARCHITECTURES[header.architecture].says.get("gating")
        if kind not in GATING:
            raise UnsupportedModelError(
                f"{header.path} says {header.architecture}.expert_gating_func = {shown(kind)}, which is not expressed."
            )
        correction = _there(f"{at}.b_correction", header, family)
        return evolve(branch, module=evolve(module, scoring=GATING[kind], correction=correction))
    return branch
