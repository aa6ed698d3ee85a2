"""Which signals may be kept without a copy. **Lasting**: the memory of the value is its own, and nothing writes there once it has passed.

PyTorch counts how often an operator wrote into a memory, most views of it included; a model that writes in place (`clamp_`, `add_`) is told by
that, and by its numbers, since `_unsafe_view` shares a memory and not the count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from llmtrace.dataflow.forms import Form, held_by
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.memory import memory_of
from llmtrace_torch.tape.tapped import tapped
from llmtrace_torch.tape.taps import Passing, Tap

SHARE = 0.5
"""A value that is a smaller part of its memory than this is copied: to keep it would keep all of that."""


def lasting(
    model: PreTrainedModel,
    prompt: Sequence[int],
    places: Mapping[str, tuple[str, Form]],
    seen: Mapping[str, Passing],
) -> frozenset[str]:
    """The sites that last, as a run on a prompt shows. One that is put together of several values never does."""
    single = {site: held_by(place)[0] for site, place in places.items() if len(held_by(place)) == 1}
    taps = dict.fromkeys(seen[value].tap for value in single.values())
    modules = dict(model.named_modules())
    weights = {memory_of(each) for each in (*model.parameters(), *model.buffers())}
    passed: dict[Tap, tuple[torch.Tensor, torch.Tensor, int]] = {}
    ids = torch.tensor([list(prompt)], device=model.device)

    def look(tap: Tap, tensor: torch.Tensor) -> None:
        passed[tap] = tensor.detach(), tensor.detach().clone(), tensor._version

    with torch.no_grad(), forgetful(modules.values()), tapped(modules, list(taps), look):
        model(ids, use_cache=False)
    kept = {
        tap
        for tap, (tensor, before, version) in passed.items()
        if tensor._version == version
        and torch.equal(tensor.nan_to_num(), before.nan_to_num())
        and memory_of(tensor) not in weights
        and tensor.numel() * tensor.element_size() >= SHARE * tensor.untyped_storage().nbytes()
    }
    return frozenset(site for site, value in single.items() if seen[value].tap in kept)
