"""Which architectures are exported, and the checkpoint of each: the kit's tiny models, as far as they are published so.

The kit switches on what hides a mistake when it is off. Here the weights are larger too: attention that is nearly uniform would agree
with a graph that has lost its window or its scale.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from llmtrace.testing.model import PUBLISHED
from llmtrace.testing.tiny import write_tiny
from tests.backends.onnxruntime.exports import smollm2

ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
"""An exporter that writes a configuration for generation does not work without."""
LARGER = 2.0
UNBIASED = {"attention_bias": False}
PROMPT = (11, 52, 4, 90, 33, 33, 71, 8, 19, 64, 27)
"""Eleven tokens: no head count, width or window."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-yarn": (
        "llama",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    ),
    "mistral": ("mistral", {"head_dim": 16}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {"head_dim": 16}),
    "gemma3": ("gemma3_text", {"head_dim": 16}),
    "gpt2": ("gpt2", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_neo": ("gpt_neo", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gptj": ("gptj", {}),
    "codegen": ("codegen", {}),
    "phi": ("phi", {"qk_layernorm": False, "hidden_size": 128}),
    "phi3": ("phi3", {}),
    "olmo": ("olmo", UNBIASED),
    "olmo2": ("olmo2", UNBIASED),
    "olmo3": ("olmo3", UNBIASED),
    "falcon": ("falcon", {"alibi": False}),
    "falcon-alibi": ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False}),
    "falcon-two-norms": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {}),
    "opt": ("opt", {}),
    "starcoder2": ("starcoder2", {}),
    "stablelm": ("stablelm", {"qk_layernorm": False}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True}),
    "granite": ("granite", UNBIASED | {"mlp_bias": False}),
    "cohere": ("cohere", UNBIASED | {"use_qk_norm": False}),
    "cohere2": ("cohere2", {}),
    "smollm3": ("smollm3", {}),
    "exaone4": ("exaone4", {"head_dim": 16}),
    "nemotron": ("nemotron", UNBIASED | {"mlp_bias": False, "head_dim": 32}),
    "glm4": ("glm4", {"head_dim": 16}),
    "helium": ("helium", UNBIASED),
    "ernie4_5": ("ernie4_5", {"head_dim": 16, "use_bias": False}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 16, "attention_bias": False}),
    "mixtral": ("mixtral", {"head_dim": 16}),
    "qwen3_moe": ("qwen3_moe", {"head_dim": 16}),
    "olmoe": ("olmoe", {}),
    "gpt_oss": ("gpt_oss", {"head_dim": 16}),
}
"""Architecture to family of the kit's tiny models, and the keys of its config that differ."""


def checkpoint(architecture: str, directory: Path) -> Path:
    """The directory of a checkpoint, written if it is not there: `directory/checkpoints/architecture`. Needs torch and transformers."""
    place = directory / "checkpoints" / architecture
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=place.parent))
        smollm2.write(made) if architecture == smollm2.NAME else write(architecture, made)
        settle(made, place)
    return place


def settle(made: Path, place: Path) -> None:
    """Put what was made where it belongs, unless another process was quicker: nobody meets half of it."""
    made.chmod(0o755)
    try:
        made.rename(place)  # fails where the place is not empty
    except OSError:
        shutil.rmtree(made)
        if not place.exists():
            raise


def write(architecture: str, directory: Path) -> None:
    """The checkpoint's files. Always the same."""
    family, overrides = ARCHITECTURES[architecture]
    model = write_tiny(family, directory, **{**PUBLISHED.get(family, {}), **ENDS, **overrides})
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(LARGER)
    model.save_pretrained(directory)
    write_tokenizer(directory, model.config.vocab_size)


def write_tokenizer(directory: Path, vocab: int) -> None:
    """One word a token: `w5` is 5."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{token}": token for token in range(vocab)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped: Any = transformers.PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w0").save_pretrained(
        directory
    )
