"""What a checkpoint directory must be before transformers is let at it, so that what is wrong is said by name."""

from __future__ import annotations

from pathlib import Path

from transformers import CONFIG_MAPPING

from llmtrace.errors import ModelOpenError, UnsupportedModelError, suggest
from llmtrace.families import code_files
from llmtrace.families.checkpoint import check_layers, read_config, refuse_quantised, tensors_of
from llmtrace.families.safetensors import Tensors

COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""How configs call the number of their layers."""


def check(source: str, path: Path, *, trust: bool) -> tuple[str, Tensors]:
    """A directory's `model_type`, and its tensors, of which only headers are read.

    Raises `ModelOpenError` for what is no complete checkpoint or brings code that is not trusted, and `UnsupportedModelError` for a type
    that transformers does not know, and for weights that are quantised.
    """
    config = read_config(path)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ModelOpenError("config.json lacks 'model_type', which names the architecture.")
    if config.get("auto_map") and not trust:
        raise ModelOpenError(
            f"{source}, a model of the type {kind!r:.60}, brings Python code of its own ({code_files(config['auto_map'])}, by auto_map in "
            "config.json), which is not run. If you trust its author, open it with the option trust_remote_code=true."
        )
    if kind not in CONFIG_MAPPING and not config.get("auto_map"):
        raise UnsupportedModelError(
            f"{source} is a model of the type {kind!r:.60}, which transformers does not know.{suggest(kind[:60], list(CONFIG_MAPPING))}"
        )
    refuse_quantised(config, source)
    tensors, where = tensors_of(path)
    layers = next((config[key] for key in COUNTS if type(config.get(key)) is int), 0)
    check_layers(layers, tensors, where)
    return kind, tensors
