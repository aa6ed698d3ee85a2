"""The model that is measured, as anybody opens it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llmtrace
from llmtrace.model import Model


def open_model(path: Path, threads: int, attention: str = "auto") -> Model:
    """In float32, with transformers' own choice of kernels."""
    return llmtrace.open(
        path, backend="torch", options={"dtype": "float32", "threads": threads, "attention": attention}
    )


def bare(model: Model, ids: list[int]) -> Callable[[], object]:
    """The forward pass of the very module that is looked at."""
    import torch

    module: Any = getattr(model.session, "model")  # noqa: B009  the protocol promises none
    batch = torch.tensor([ids])

    def forward() -> object:
        with torch.no_grad():
            return module(batch, use_cache=False)

    return forward


def prompt(model: Model, tokens: int) -> list[int]:
    """Seeded ids."""
    chosen = random.Random(0)  # noqa: S311  no secret
    return [chosen.randrange(model.spec.vocab) for _ in range(tokens)]
