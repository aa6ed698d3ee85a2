"""Other code in place of a module's, in one open model alone: another of the same class, open beside it, is left as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch


def instead(module: Any, forward: Callable[..., Any]) -> None:
    """Compute something else; `forward` is given the original first."""
    original = module.forward
    module.forward = lambda *args, **named: forward(original, *args, **named)


def during(module: Any, name: str, other: Callable[..., Any]) -> None:
    """While the module runs, a function of its own file is another one, which is given the original first."""
    home = sys.modules[type(module).__module__]
    original = getattr(home, name)

    def forward(run: Callable[..., Any], *args: Any, **named: Any) -> Any:
        with patch.object(home, name, lambda *a, **n: other(original, *a, **n)):
            return run(*args, **named)

    instead(module, forward)


def blocks(model: Any) -> Any:
    """Its blocks."""
    body = model.base_model
    return body.layers if hasattr(body, "layers") else body.h


def attentions(model: Any) -> list[Any]:
    """Their attention modules."""
    return [block.self_attn if hasattr(block, "self_attn") else block.attn for block in blocks(model)]


def identity(original: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
    """A module that is not there."""
    return x
