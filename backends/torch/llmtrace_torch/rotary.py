"""Rotary embeddings that remember. transformers' dynamic kinds (`dynamic`, `longrope`) keep the frequencies of the longest prompt so far,
so that what a prompt gives depends on what ran before it; here a run leaves them as it found them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def forgetful(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Put every rotary module back on the way out: buffers, their numbers, cached lengths and whatever else was set on it."""
    rotary = [module for module in modules if is_rotary(module)]
    kept = [
        (
            module,
            dict(vars(module)),
            dict(module._buffers),
            {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)},
        )
        for module in rotary
    ]
    try:
        yield
    finally:
        for module, attributes, buffers, numbers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
            with torch.no_grad():
                for name, number in numbers.items():  # longrope writes into its buffer
                    module.get_buffer(name).copy_(number)


def is_rotary(module: torch.nn.Module) -> bool:
    """Whether a module has a buffer called `inv_freq`, perhaps of a kind of layer (`full_attention_inv_freq`)."""
    return any(name.endswith("inv_freq") for name in module._buffers)
