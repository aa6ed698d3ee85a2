"""Several prompts in one pass, padded on the right. **Row**: one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from attrs import frozen
from transformers import PreTrainedModel

from llmtrace.protocol import Observer, Request
from llmtrace.spec import DynamicNtk, LongRope, ModelSpec

BATCH_TOKENS = 4096
"""Prompts are run together up to so many tokens, padding counted."""


@frozen
class Row:
    """One prompt of a batch."""

    index: int
    batch: int
    length: int
    padded: int

    def of(self, tensor: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        """The prompt's part of a value, without its padding: a view. `axes` are those that grow with a prompt that runs alone; the first
        axis counts prompts, unless the tokens of all prompts stand one after the other."""
        if self.batch == 1:
            return tensor
        if axes and tensor.shape[axes[0]] == self.batch * self.padded:
            return tensor.narrow(axes[0], self.index * self.padded, self.length)
        mine = tensor[self.index : self.index + 1] if tensor.shape[0] == self.batch else tensor
        for axis in axes:
            mine = mine.narrow(axis, 0, self.length)
        return mine


class BatchedSession(ABC):
    """What runs prompts of an open model, one or several together."""

    spec: ModelSpec
    model: PreTrainedModel | None
    """None where it was closed."""
    _modules: dict[str, torch.nn.Module]

    def run(self, request: Request, observer: Observer) -> None:
        """One forward pass. The model is left as it was; an exception of the observer stops the run and is passed on."""
        self._forward([request], [observer])

    def run_many(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        """As `run` for each pair, several prompts in one pass, padded on the right where no token can see the padding.

        The numbers may differ from those of `run` by rounding alone, because other shapes take other kernels. Relative errors that were
        measured on the CPU, of the worst site and of the logits of a model of 30 blocks: float32 4e-6 and 1e-6 (tests allow 1e-5),
        float16 7e-3 and 3e-3, bfloat16 4e-2 and 3e-2 (0.17 at special tokens).
        """
        for batch in batches(self.spec, requests):
            self._forward([requests[place] for place in batch], [observers[place] for place in batch])

    def close(self) -> None:
        """Let go of the model."""
        self.model = None
        self._modules = {}

    @abstractmethod
    def _forward(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        """One pass of prompts that run together. Raises `ModelOpenError` for a model that was closed."""


def padded(requests: Sequence[Request], device: torch.device) -> tuple[list[Row], torch.Tensor]:
    """The rows of a batch, and its token ids [prompt token].

    Padding repeats each prompt's own last token: another's row of the embedding may hold NaN, and 0 times that is NaN.
    """
    longest = max(len(request.tokens) for request in requests)
    ids = [[*request.tokens, *request.tokens[-1:] * (longest - len(request.tokens))] for request in requests]
    rows = [Row(at, len(requests), len(request.tokens), longest) for at, request in enumerate(requests)]
    return rows, torch.tensor(ids, device=device)


def batches(spec: ModelSpec, requests: Sequence[Request]) -> Iterator[list[int]]:
    """Places of the prompts that run together: neighbours in length, up to `BATCH_TOKENS`.

    Where rotary angles depend on how long the prompt is, or may, only prompts of one length run together.
    """
    attentions = [block.attention for block in spec.blocks if block.attention is not None]
    scalings = {type(each.rotary.scaling) for each in attentions if each.rotary is not None}
    alike = bool(scalings & {DynamicNtk, LongRope}) or not all(each.projected for each in attentions)
    batch: list[int] = []
    for place in sorted(range(len(requests)), key=lambda place: len(requests[place].tokens)):
        length = len(requests[place].tokens)
        full = length * (len(batch) + 1) > BATCH_TOKENS
        if batch and (full or (alike and length != len(requests[batch[0]].tokens))):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
