"""Families: from `config.json` to a `ModelSpec`, and from a checkpoint's tensor names to schema weights. One row a family.

>>> sorted(FAMILIES)[:3]
['arcee', 'bloom', 'codegen']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import evolve

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown, suggest
from llmtrace.families import alibi, corrected, gemma, gpt, granite, llama, moe, neox, olmo
from llmtrace.families.config import Config
from llmtrace.families.native import Family
from llmtrace.schema.sound import sound
from llmtrace.spec import ModelSpec

FAMILIES: dict[str, Family] = {
    **llama.FAMILIES,
    **gemma.FAMILIES,
    **olmo.FAMILIES,
    **gpt.FAMILIES,
    **neox.FAMILIES,
    **alibi.FAMILIES,
    **moe.FAMILIES,
    **granite.FAMILIES,
    **corrected.FAMILIES,
}
"""`model_type` of a config to what LLMTrace knows of the architecture."""

MOST = {"num_hidden_layers": 2_000, "num_attention_heads": 10_000}
"""What a config may count at most before anything is made for each: the largest models have some hundred of either."""

REFUSED: dict[str, str] = {
    "deepseek_v2": "multi-head latent attention",
    "deepseek_v3": "multi-head latent attention",
    "minicpm3": "multi-head latent attention",
    "gemma3n": "several residual streams",
    "gemma4": "layers that share keys and values, and proportional rotary",
    "mamba": "state-space layers",
    "mamba2": "state-space layers",
    "falcon_mamba": "state-space layers",
    "jamba": "state-space layers",
    "bamba": "state-space layers",
    "falcon_h1": "state-space layers",
    "granitemoehybrid": "state-space layers",
    "nemotron_h": "state-space layers",
    "qwen3_next": "linear-attention layers",
    "qwen3_5": "linear-attention layers",
    "rwkv": "linear-attention layers",
    "lfm2": "convolution layers",
    "recurrent_gemma": "recurrent layers",
    "llama4": "chunked attention",
    "phimoe": "sparse-mixer routing",
    "nanochat": "rotary embedding in the other direction",
    "apertus": "the xIELU activation",
    "t5": "an encoder and cross-attention",
    "bart": "an encoder and cross-attention",
    "whisper": "an encoder and cross-attention",
    "bert": "attention in both directions",
    "roberta": "attention in both directions",
    "modernbert": "attention in both directions",
    "xlnet": "attention in both directions",
    "gpt_neox_japanese": "a bias on attention's output in the last layer only",
}
"""Architectures that the equations cannot express, and what stands in the way."""


def family(config: Mapping[str, Any]) -> Family:
    """The row of a config's `model_type`, with the weights that its variant has.

    Raises `UnsupportedModelError`, with near names, for a family that has no row, and `ModelOpenError` without a `model_type`.
    """
    name = config.get("model_type")
    if not isinstance(name, str):
        raise ModelOpenError("config.json lacks 'model_type', which names the architecture.")
    if name in REFUSED:
        raise UnsupportedModelError(f"{name} models have {REFUSED[name]}, which the equations do not express.")
    if name not in FAMILIES and (own := config.get("auto_map")):
        raise UnsupportedModelError(
            f"config.json says model_type {name!r:.60}, which is not among the {len(FAMILIES)} families that LLMTrace knows, and brings "
            f"its own code ({code_files(own)}), which LLMTrace never runs."
        )
    if name not in FAMILIES:
        raise UnsupportedModelError(
            f"{name!r:.60} is not among the {len(FAMILIES)} families that LLMTrace knows.{suggest(name[:60], FAMILIES)}"
        )
    row = FAMILIES[name]
    if row.variant is None:
        return row
    with _usable(name):
        return evolve(row, weights=row.variant(read(config, row)))


def code_files(auto_map: object) -> str:
    """The files that an `auto_map` names: `modeling_x.py`."""
    named = auto_map.values() if isinstance(auto_map, Mapping) else [auto_map]
    files = dict.fromkeys(f"{str(each).rpartition('.')[0]}.py" for each in named)
    return ", ".join(shown(file) for file in list(files)[:3])


def read(config: Mapping[str, Any], row: Family) -> Config:
    """The config as a family's functions read it: with its defaults, its spellings, and of the text model alone."""
    inner = config
    if row.part:
        inner = config.get(row.part) or {}
        if not isinstance(inner, Mapping):
            raise ModelOpenError(f"config.json has {row.part} that is not an object.")
        inner = {"model_type": f"{config['model_type']}_text", **inner}
        if "tie_word_embeddings" in config:
            inner.setdefault("tie_word_embeddings", config["tie_word_embeddings"])
    found = Config(inner, row.defaults, row.spellings)
    for key, most in MOST.items():
        count = found.get(key, 1)  # a key that is missing is missed by whoever reads it
        if type(count) is not int or not 1 <= count <= most:
            raise ModelOpenError(
                f"config.json gives {found.spelled(key)} = {shown(count)}; it must be a whole number from 1 to {most:,}."
            )
    return found


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """What a config describes.

    Raises `UnsupportedModelError` for what the equations do not express, and `ModelOpenError` for a config that is incomplete or
    contradicts itself.
    """
    row = family(config)
    with _usable(config["model_type"]):
        return sound(row.spec(read(config, row)))


@contextmanager
def _usable(name: str) -> Iterator[None]:
    """What a family's functions trip over is an unusable value of the config."""
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
        raise ModelOpenError(f"config.json of this {name} model has an unusable value: {str(error)[:200]}.") from error
