"""Tiny models of architectures that have a row, to be read as if they had none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch


@pytest.fixture
def loaded(bare: Callable[..., Any]) -> Callable[..., Any]:
    """A loaded model, by family, and anything else that `bare` takes."""

    def load(family: str, **more: Any) -> Any:
        model = bare(family, **more)
        model.requires_grad_(False)
        return model

    return load


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.tensor([[3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7]])
