"""PyTorch's operators on NumPy's arrays, in their own memory: its threads are the ones that are awake while a model of its runs."""

from __future__ import annotations

import torch
from attrs import frozen

from llmtrace.schema.sites import Array


@frozen
class TorchArithmetic:
    """As `llmtrace.schema.arithmetic.Arithmetic`."""

    block: int = 1 << 20
    """More than one core's cache: each operator is shared among all, and costs a call."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """`a @ b`, written to `out` and returned."""
        torch.matmul(_tensor(a), _tensor(b), out=torch.from_numpy(out))
        return out

    def softmax(
        self, s: Array, sinks: Array | None, pattern: Array | None, sink: Array | None, *, shift: bool = True
    ) -> None:
        """Over the last axis and one imaginary number more. PyTorch's shifts in the same pass, so that it costs nothing."""
        scores = torch.from_numpy(s)
        if sinks is None:
            torch.softmax(scores, -1, out=scores)
        else:
            given = _tensor(sinks)
            top = torch.maximum(scores.amax(-1, keepdim=True), given)
            taken = (given - top).exp_()
            mass = scores.sub_(top).exp_().sum(-1, keepdim=True).add_(taken)
            scores.div_(mass)
            if sink is not None:
                torch.from_numpy(sink).copy_((taken / mass)[..., 0])
        if pattern is not None:
            torch.from_numpy(pattern).copy_(scores)

    def distances(self, vectors: Array, y: Array) -> Array:
        """The L1 norm of `y - vectors` over the last axis."""
        parts = torch.from_numpy(vectors)
        found: Array = torch.sub(_tensor(y), parts, out=parts).abs_().sum(-1).numpy()
        return found


def _tensor(array: Array) -> torch.Tensor:
    """The same memory; a copy where nobody may write, of which PyTorch has no word."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
