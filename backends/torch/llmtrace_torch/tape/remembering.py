"""Rotary modules that remember, on a tape: what such a module returns depends on how long a prompt is by no operator of its own, but by what Python
decides on the way. So it is one call, which is asked again for every length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from llmtrace_torch.rotary import forgetful, is_rotary
from llmtrace_torch.tape.record import Ref

FAR = 1 << 17
"""Positions that are beyond any length at which frequencies change."""


def positions_of(module: torch.nn.Module, given: Any, values: Mapping[str, torch.Tensor]) -> tuple[Any, str] | None:
    """Of a rotary module whose frequencies change with the length of a prompt: what it is to be given instead, so that it reads nothing of the
    tokens, and the value that holds the positions. None of any other module.
    """
    if not is_rotary(module):
        return None
    refs: list[str] = []

    def blank(x: Any) -> Any:
        if not isinstance(x, Ref) or x.name not in values:
            return x
        value = values[x.name]
        if value.is_floating_point():  # it says the type and the device of what is returned
            return torch.zeros((1,) * value.ndim, device=value.device)
        refs.append(x.name)
        return x

    instead = tree_map(blank, given)
    if len(set(refs)) != 1 or not _changes(module, instead, refs[0]):
        return None
    return instead, refs[0]


def _changes(module: torch.nn.Module, given: Any, positions: str) -> bool:
    """Whether a module has other frequencies after a long prompt."""
    before = _frequencies(module)
    device = next(iter(before.values())).device
    far = torch.arange(FAR, device=device)[None]
    args, kwargs = tree_map(lambda x: far if isinstance(x, Ref) and x.name == positions else x, given)
    with torch.no_grad(), forgetful([module]):
        module(*args, **kwargs)
        after = _frequencies(module)
        return before.keys() != after.keys() or any(not torch.equal(before[name], after[name]) for name in before)


def _frequencies(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)}
