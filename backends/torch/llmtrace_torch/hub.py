"""A model on the hub, by name: its files are fetched (or found where they were fetched before), and opened as a directory."""

from __future__ import annotations

from pathlib import Path

from llmtrace.errors import ModelOpenError
from llmtrace_torch.quiet import quiet

WANTED = [
    "config.json", "generation_config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.tiktoken", "tekken.json", "spiece.model",
]  # fmt: skip
"""Config, safetensors and tokenizer: nothing else of a repository is fetched, and no pickle."""
CODE = ["*.py"]
"""What is fetched besides where the repository's code may run."""


def fetch(name: str, revision: str | None, *, trust: bool = False) -> Path:
    """The local directory of a model on the hub. Raises `ModelOpenError` if there is none, or no way to reach it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with quiet():
            return Path(
                snapshot_download(name, revision=revision, allow_patterns=[*WANTED, *CODE] if trust else WANTED)
            )
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelOpenError(f"There is no file or directory {name!r}, and no such model on the hub.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelOpenError(
            f"There is no file or directory {name!r}, it was not fetched before, and the hub cannot be reached ({type(error).__name__}): "
            "name a local directory, or go online (HF_HUB_OFFLINE must not be set)."
        ) from error
