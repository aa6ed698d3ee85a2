"""Pieces of a graph, as torch computes them: what identification is tried on."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

UNITS = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def of(function, dtype=torch.float32):
    """A function of tensors as one of arrays: float32 in and out, computed in `dtype`."""

    def piece(*arrays):
        assert all(array.dtype == np.float32 for array in arrays)
        with torch.no_grad():
            return function(*(torch.from_numpy(np.array(array)).to(dtype) for array in arrays)).float().numpy()

    return piece
