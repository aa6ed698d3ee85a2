"""Hooks on a loaded model, and what passes there as an array of the schema.

Nothing is copied that was not asked for: on the CPU what is handed over is a view of the runtime's own tensor, valid during the call;
from another device only the wanted tokens are fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from attrs import evolve
from transformers import PreTrainedModel

from llmtrace.edits import Change
from llmtrace.families.native import arrange
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.schema.verify import token_axis
from llmtrace.selection import Cut
from llmtrace_torch.arrays import as_numpy
from llmtrace_torch.attention import listening
from llmtrace_torch.batches import Row
from llmtrace_torch.sites import Tap, What

K = TypeVar("K")
KERNEL = ("query", "key", "value", "pattern")


class _Kernel:
    """Passes on what the attention interface hands to the kernel."""

    def __init__(
        self,
        taps: Mapping[int, list[tuple[Any, Tap]]],
        hand: Callable[[Any, torch.Tensor], torch.Tensor | None],
        named: dict[str, Any],
    ) -> None:
        self._taps = taps
        self._hand = hand
        self._named = named

    def attention(
        self, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], named: Mapping[str, Any]
    ) -> Mapping[str, torch.Tensor]:
        given = dict(tensors)
        for key, tap in self._taps.get(id(module), []):
            if tap.port in given:
                self._named.update(named)
                changed = self._hand(key, given[tap.port])
                given[tap.port] = given[tap.port] if changed is None else changed
        return given


@contextmanager
def hooked(
    model: PreTrainedModel,
    modules: Mapping[str, torch.nn.Module],
    taps: Mapping[K, Tap],
    choices: int,
    hand: Callable[[K, torch.Tensor], torch.Tensor | None],
    done: Callable[[int], None] | None = None,
    blocks: Iterable[str] = (),
    named: dict[str, Any] | None = None,
) -> Iterator[None]:
    """While this is entered, `hand` gets each tap's tensor as it passes, and `done` each block's number when it has ended. What `hand`
    returns passes on in its place, to the next tap of the same port too; None leaves it as it is.

    `named` collects the keywords that the kernel was called with. On the way out every hook is removed, and the attention of the
    model is what it was.
    """
    ports: dict[tuple[str, str], list[tuple[K, Tap]]] = {}
    kernel: dict[int, list[tuple[K, Tap]]] = {}
    for key, tap in taps.items():
        if tap.port in KERNEL:
            kernel.setdefault(id(modules[tap.module]), []).append((key, tap))
        else:
            ports.setdefault((tap.module, tap.port), []).append((key, tap))

    def pre_hook(here: list[tuple[K, Tap]]) -> Callable[..., Any]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            swap = _pass_on(here, [*args, *kwargs.values()], choices, hand)
            if not swap:
                return None
            swapped = {name: swap.get(id(value), value) for name, value in kwargs.items()}
            return tuple(swap.get(id(value), value) for value in args), swapped

        return hook

    def hook(here: list[tuple[K, Tap]]) -> Callable[..., Any]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            logits = getattr(output, "logits", None)
            values = [output if logits is None else logits]
            values = list(output) if isinstance(output, tuple | list) else values
            swap = _pass_on(here, values, choices, hand)
            if not swap:
                return None
            if logits is not None:
                output.logits = swap[id(logits)]
                return output
            changed = [swap.get(id(value), value) for value in values]
            return type(output)(changed) if isinstance(output, tuple | list) else changed[0]

        return hook

    def ended(layer: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if done is not None:
                done(layer)

        return hook

    with ExitStack() as stack:
        for (name, port), here in ports.items():
            if port == "in":
                handle = modules[name].register_forward_pre_hook(pre_hook(here), with_kwargs=True)
            else:
                handle = modules[name].register_forward_hook(hook(here))
            stack.callback(handle.remove)
        for layer, name in enumerate(blocks):
            stack.callback(modules[name].register_forward_hook(ended(layer)).remove)
        if kernel:
            stack.enter_context(listening(model, _Kernel(kernel, hand, {} if named is None else named)))
        yield


def _pass_on(
    here: list[tuple[K, Tap]],
    values: list[Any],
    choices: int,
    hand: Callable[[K, torch.Tensor], torch.Tensor | None],
) -> dict[int, torch.Tensor]:
    """Hand each tap its tensor; by the identity of those that were changed, what passes on in their place."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    swap: dict[int, torch.Tensor] = {}
    for key, tap in here:
        found = _pick(tap.what, tensors, choices)
        if found is not None:
            changed = hand(key, swap.get(id(found), found))
            if changed is not None:
                swap[id(found)] = changed
    return swap


def _pick(what: What, tensors: list[torch.Tensor], choices: int) -> torch.Tensor | None:
    """Experts chosen and their weights are told apart by their type, and from all else by their last axis."""
    if what == "first":
        return next(iter(tensors), None)
    wide = [tensor for tensor in tensors if tensor.ndim and tensor.shape[-1] == choices]
    found = [tensor for tensor in wide if tensor.is_floating_point() == (what == "choice")]
    return found[-1] if found else None


def extract(tensor: torch.Tensor, tap: Tap, step: Step, cut: Cut, row: Row, divisor: float = 1.0) -> Array:
    """What a tap saw of one prompt, as the schema has it, cut as asked: read-only, and a view where it can be."""
    mine, axis = _row(tensor.detach(), tap, row)
    place = token_axis(step)
    tokens = cut.indices[place]
    if mine.device.type != "cpu" and tokens is not None:
        mine = mine.index_select(axis, torch.tensor(tokens, device=mine.device))
        cut = evolve(cut, indices=tuple(None if here == place else part for here, part in enumerate(cut.indices)))
    array = cut.apply(arrange(as_numpy(mine), tap.axes, step.axes, step.sizes, tap.piece))
    if divisor != 1.0:
        array = array / array.dtype.type(divisor)
    array = array.view()
    array.flags.writeable = False
    return array


def edit(
    tensor: torch.Tensor, tap: Tap, step: Step, changes: Sequence[Change], row: Row, divisor: float = 1.0
) -> torch.Tensor:
    """What is to pass on in a tensor's place: a copy with one prompt's part of it changed, as the schema has it."""
    host = tensor.detach().to("cpu", copy=True)
    array = arrange(as_numpy(_row(host, tap, row)[0]), tap.axes, step.axes, step.sizes, tap.piece)
    value = array if divisor == 1.0 else array / array.dtype.type(divisor)
    for change in changes:
        change.apply(value)
    if divisor != 1.0:
        array[...] = value * array.dtype.type(divisor)
    return host.to(tensor.device)


def _row(tensor: torch.Tensor, tap: Tap, row: Row) -> tuple[torch.Tensor, int]:
    """One prompt's part without its padding, and the axis of its tokens."""
    shape = tensor.shape
    if not tap.axes.startswith("token"):
        mine = tensor[row.index, :, : row.length]
        return (mine[..., : row.length] if tap.axes.endswith("key") else mine), 1
    if tuple(shape[:2]) == (row.batch, row.padded):
        return tensor[row.index, : row.length], 0
    if shape[0] == row.batch * row.padded:
        start = row.index * row.padded
        return tensor[start : start + row.length], 0
    return (tensor[0] if shape[0] == 1 else tensor)[: row.length], 0  # positions: the same for every prompt
