"""Where tensors lie in memory: by that values are told apart, and a tensor is a part of another. **Base**: the first tensor seen in a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

Key: TypeAlias = tuple[Any, ...]


def memory_of(tensor: torch.Tensor) -> int:
    """The memory that a tensor lies in, perhaps with others."""
    return int(tensor.untyped_storage().data_ptr())


def key_of(tensor: torch.Tensor) -> Key:
    """Where in its memory a tensor lies, and how; one without numbers lies nowhere."""
    if not tensor.numel():
        return (id(tensor),)
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def within(tensor: torch.Tensor, base: torch.Tensor) -> tuple[Any, ...]:
    """Shape, stride and offset of a tensor in the memory of another."""
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset() - base.storage_offset()


def seen_again(base: torch.Tensor, shape: Sequence[int], stride: Sequence[int], offset: int) -> torch.Tensor:
    """A part of what lies in a tensor's memory."""
    return base.as_strided(shape, stride, base.storage_offset() + offset)


def written_into(
    base: torch.Tensor, part: torch.Tensor, shape: Sequence[int], stride: Sequence[int], offset: int
) -> torch.Tensor:
    """A tensor with a part of it exchanged."""
    copy = torch.empty_strided(base.shape, base.stride(), dtype=base.dtype, device=base.device).copy_(base)
    copy.as_strided(shape, stride, offset).copy_(part)
    return copy
