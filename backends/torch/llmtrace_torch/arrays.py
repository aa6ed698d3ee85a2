"""Tensors as arrays and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from llmtrace.schema.sites import Array


def kind_of(tensor: torch.Tensor) -> str:
    """The name of a tensor's type, which is that of its array's: `bfloat16`."""
    return str(tensor.dtype).removeprefix("torch.")


def as_numpy(tensor: torch.Tensor) -> Array:
    """The same memory as an array, where it is the CPU's; bfloat16, which NumPy lacks, as `ml_dtypes` has it."""
    tensor = tensor.detach()
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def as_tensor(array: Array) -> torch.Tensor:
    """A copy of an array as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array.view(np.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
