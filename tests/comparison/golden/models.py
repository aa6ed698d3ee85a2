"""The tiny models of the cases: a checkpoint, and what a converter made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from safetensors.numpy import load_file, save_file

from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.spec import ModelSpec
from tests.comparison.faults.bases import PROMPT, write_base
from tests.comparison.faults.rows.converters import attention

SHORT = PROMPT[:5]
"""As long as the window of the models that have one."""


@frozen
class Model:
    """What a writer of files is given."""

    spec: ModelSpec
    weights: Mapping[str, np.ndarray]


def write_checkpoint(base: str, directory: Path) -> Path:
    """`checkpoint`, and two files of prompts beside it: `prompts.txt`, which is longer than every window, and `short.txt`."""
    (directory / "prompts.txt").write_text(f"{PROMPT}\n")
    (directory / "short.txt").write_text(f"{SHORT}\n")
    return write_base(base, directory / "checkpoint")


def read(directory: Path, **attention_fields: Any) -> Model:
    """A checkpoint as a converter takes it, with fields of every attention as it has them."""
    found = open_checkpoint(directory)
    return Model(
        attention(**attention_fields)(found.spec), {name: np.asarray(found.weights[name]) for name in found.weights}
    )


def copy_with(directory: Path, name: str, config: Callable[[dict[str, Any]], None]) -> Path:
    """A copy beside it, with another config."""
    other = directory.with_name(name)
    shutil.copytree(directory, other)
    found = json.loads((other / "config.json").read_text("utf-8"))
    config(found)
    (other / "config.json").write_text(json.dumps(found), "utf-8")
    return other


def change(directory: Path, edit: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Edit the tensors of a checkpoint."""
    path = directory / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
