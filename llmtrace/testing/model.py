"""**Tiny model**: a seeded checkpoint that a kit run opens, as a directory in transformers' layout and as plain data.

Made with NumPy alone, so that whoever writes a backend needs neither torch nor transformers to test it. Norm weights and biases are
random: a model whose norm weights are one and whose biases are zero agrees with a wrong table of names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from safetensors.numpy import save_file

from llmtrace.errors import OptionError, suggest
from llmtrace.families import family as family_of
from llmtrace.families import spec_of
from llmtrace.families.native import Family, native_of, stored_shape
from llmtrace.families.weights import stored_as, weights_from
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec
from llmtrace.testing.tiny import TINY

FAMILIES: Mapping[str, str] = {
    "llama": "grouped queries, half-split rotary, RMS norms, a gated MLP",
    "gpt2": "learned positions, layer norms, fused q k v, tied embeddings",
    "gpt_neox": "attention and MLP in parallel, partial rotary, q k v interleaved by head",
    "gemma2": "sandwich norms, softcaps, norm weights stored less one, alternating windows",
    "qwen3": "norms of q and k",
    "mixtral": "a mixture of experts",
    "mistral": "a sliding window",
}
"""The families that a kit run covers, and what of each is new."""
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "head_dim": 16, "attention_bias": False, "mlp_bias": False},
    "gpt2": {"architectures": ["GPT2LMHeadModel"], "n_ctx": 64, "scale_attn_by_inverse_layer_idx": False},
    "gpt_neox": {"architectures": ["GPTNeoXForCausalLM"], "intermediate_size": 256},
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "query_pre_attn_scalar": 24},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "attention_bias": False},
    "mixtral": {"architectures": ["MixtralForCausalLM"], "sliding_window": None},
    "mistral": {"architectures": ["MistralForCausalLM"]},
}
"""What their published models have and ours, which switch every feature on, have not: a runtime need not know what nobody ships."""
TOKENS = 12
"""How long the usual prompt is: more than twice the sliding window."""


@frozen(eq=False)
class TinyModel:
    """One tiny model, in both forms."""

    family: str
    """`model_type` of its config."""
    directory: Path
    """`config.json` and `model.safetensors`, float32, as transformers would have saved them. There is no tokenizer."""
    spec: ModelSpec
    """What it is."""
    weights: Mapping[str, Array] = field(repr=False)
    """Every weight that the spec's equations read, by schema name, float32."""
    tokens: tuple[int, ...]
    """A prompt; token ids."""


def tiny_model(family: str, directory: str | Path, seed: int = 0) -> TinyModel:
    """Write a tiny model of one family into `directory`, which is made if need be. The same seed gives the same files.

    Raises `OptionError` for a family that has none.
    """
    if family not in TINY:
        raise OptionError(f"There is no tiny model of the family {family!r}.{suggest(family, TINY)}")
    config = _config(family)
    row, spec = family_of(config), spec_of(config)
    random = np.random.default_rng([seed, *family.encode()])
    tensors = dict(_tensors(row, spec, random))
    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    weights = weights_from(spec, row, tensors, str(out))
    tokens = tuple(int(token) for token in random.integers(0, spec.vocab, TOKENS))
    return TinyModel(family, out, spec, dict(weights), tokens)


def _config(family: str) -> dict[str, Any]:
    """As complete as those that models are published with: some runtimes have no defaults."""
    row = family_of({"model_type": family, **TINY[family]})
    defaults = {row.spellings.get(key, key): value for key, value in row.defaults.items()}
    named = {"model_type": family, "dtype": "float32", "torch_dtype": "float32"}
    return {**named, **defaults, **TINY[family], **PUBLISHED.get(family, {})}


def _tensors(row: Family, spec: ModelSpec, random: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Every stored tensor once: norms near one, biases near nought, matrices of small numbers."""
    made: set[str] = set()
    for weight, sizes in needed(spec):
        native, names = native_of(row, stored_as(spec, weight.name), weight.shape[0])
        for name in names:
            if name not in made:
                made.add(name)
                yield name, _tensor(stored_shape(native.axes, sizes), _mean(weight.name) - native.plus, random)


def _mean(weight: str) -> float:
    return 1.0 if weight.endswith(".w") else 0.0


def _tensor(shape: tuple[int, ...], mean: float, random: np.random.Generator) -> Any:
    spread = 0.3 if len(shape) == 1 else 0.06
    return (mean + spread * random.normal(size=shape)).astype(np.float32)
