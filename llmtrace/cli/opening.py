"""Opens the model that a command names, and says which backend took it; tells a model from a saved trace by its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from llmtrace.cli.options import Opening, Out
from llmtrace.cli.output import say

if TYPE_CHECKING:
    from llmtrace.model import Model
    from llmtrace.trace import ModelInfo

SUFFIX = ".trace"
WHY = {
    "native": "the runtime of this format",
    "converting": "it converts this format",
    "reference": "no installed runtime opens this",
    "named": "as asked for",
}


def open_model(opening: Opening, out: Out) -> Model:
    """Open, and say how. Raises what `llmtrace.open` raises."""
    import llmtrace

    if not opening.model:
        raise click.UsageError("MODEL is empty: give a directory, a file or a name.")
    say(out, f"opening {opening.model} …")
    model = llmtrace.open(opening.model, backend=opening.backend, preset=opening.preset, options=opening.settings)
    for warning in model.warnings:
        say(out, f"warning: {warning}")
    say(out, f"backend {model.info.backend} ({WHY.get(model.chosen, model.chosen)}): {described(model.info)}")
    for note in model.info.notes:
        say(out, f"note: {note}")
    return model


def is_saved(name: str) -> bool:
    """Whether a name is that of a saved trace: it ends in `.trace`, and no directory has it."""
    return name.lower().endswith(SUFFIX) and not os.path.isdir(name)


def types(weights: str, settings: Mapping[str, str]) -> str:
    """Whose type is which: that of the weights as stored, and the one that is computed in, where the backend says.

    >>> types("bfloat16", {"dtype": "float32"})
    'weights bfloat16, computes in float32'
    """
    computes = settings.get("dtype")
    return ", ".join([f"weights {weights}"] * bool(weights) + [f"computes in {computes}"] * bool(computes))


def described(info: ModelInfo) -> str:
    """Runtime, versions, device, weights and preset on one line."""
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    runtime = info.runtime + (f" ({versions})" if versions else "")
    parts = [runtime, info.device, types(info.weights, info.settings), f"preset {info.preset}"]
    return ", ".join(part for part in parts if part)
