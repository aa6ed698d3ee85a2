"""Writing a tape: a dispatch mode sees every operator that a forward pass calls, below autograd and decompositions.

Values are told apart by where they lie in memory. What is written in place is a new value, and so is all that shares its memory: a tensor
that is looked at again after its memory changed is made anew from the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from attrs import field, frozen
from torch._decomp import get_decompositions
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from llmtrace_torch.tape.memory import Key, key_of, memory_of, seen_again, within, written_into
from llmtrace_torch.tape.nested import changed

TOKENS = "tokens"
"""The value that is the prompt, [1 token]."""
LENGTH = "length"
"""The value that is how many tokens the prompt has; no call makes it, and graphs read it."""
LARGE = 1 << 22
"""Numbers of a value that is let go when the module that made it returns: matrices of experts, looked up for each token."""
SPELLED = get_decompositions(
    [
        torch.ops.aten.baddbmm,
        torch.ops.aten.addcmul,
        torch.ops.aten.addcdiv,
        torch.ops.aten.rms_norm,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,  # noqa: SLF001  it has no other name
    ]
)
"""Operators that do several things, and what does them one by one."""


@frozen
class Ref:
    """A value, where a call has it among its arguments."""

    name: str


@frozen(eq=False)
class Call:
    """One operator that was called."""

    operator: Callable[..., Any]
    """Of ATen; or one of the two that this module makes up for memory that is shared."""
    name: str
    """`add`, without a mark that it works in place."""
    args: tuple[Any, ...]
    """With `Ref` for each tensor."""
    kwargs: Mapping[str, Any]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    """One a result; empty for what is no tensor."""
    module: str
    """The innermost module whose forward was running."""
    turn: int
    """How often that module had been called before."""
    place: int
    """How many operators that call of it had called itself before; -1 for what was made up."""
    writes: bool = False
    """Whether it writes into its first argument."""
    holds: tuple[str, ...] = ()
    """Of a module that is one call: the parameters and constants that it reads itself."""


@frozen(eq=False)
class ModuleCall:
    """One call of a module."""

    module: str
    turn: int
    given: tuple[tuple[Any, ...], Mapping[str, Any]]
    """Its arguments, with `Ref` for each tensor."""
    gives: Mapping[int, str]
    """The place of a tensor among all that it returns, to the value that it is."""
    first: int
    """How many calls stood on the tape when it began."""
    end: int
    """How many stood there when it returned."""

    @property
    def takes(self) -> Mapping[int, str]:
        """The place of a tensor among all that it is given, to the value that it is."""
        return {at: each.name for at, each in enumerate(tree_leaves(self.given)) if isinstance(each, Ref)}


@frozen(eq=False)
class Tape:
    """One forward pass."""

    calls: Sequence[Call]
    modules: Sequence[ModuleCall]
    """In the order in which they returned."""
    values: Mapping[str, torch.Tensor] = field(repr=False)
    """By name, as they were when they were made; without large ones that were let go."""
    leaves: Mapping[str, torch.Tensor] = field(repr=False)
    """Parameters and buffers by their names in the model, and other constants."""
    logits: str
    """The value that the model returns."""
    tokens: int
    """How many the prompt had."""


def record(model: PreTrainedModel, tokens: Sequence[int], *, spelled: bool = True) -> Tape:
    """Run a model on one prompt, and write down what it did. Nothing of the model is changed. Raises what the model raises.

    `spelled`: operators that do several things are run one by one, which rounds otherwise.
    """
    recorder = Recorder(model, spelled)
    ids = torch.tensor([list(tokens)], device=model.device)
    recorder.know(ids, TOKENS)
    with torch.no_grad(), _watching(model, recorder), recorder:
        logits = recorder.name(model(ids, use_cache=False).logits)
    return Tape(tuple(recorder.calls), tuple(recorder.modules), recorder.values, recorder.leaves, logits, len(tokens))


class Recorder(TorchDispatchMode):
    """The mode that writes."""

    def __init__(self, model: PreTrainedModel, spelled: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._spelled = spelled
        self.calls: list[Call] = []
        self.modules: list[ModuleCall] = []
        self.values: dict[str, torch.Tensor] = {}
        self.leaves: dict[str, torch.Tensor] = {}
        self._names: dict[int, dict[Key, str]] = {}
        """Memory to the values that lie there, of those that lie alike the last."""
        self._lying: dict[int, list[str]] = {}
        """Memory to all values that lie there."""
        self._bases: dict[int, torch.Tensor] = {}
        self._lasting: set[int] = set()
        """Memory of leaves."""
        self._stale: dict[int, tuple[str, list[tuple[str, tuple[Any, ...]]]]] = {}
        """Memory of which parts were written into: what the base was, and each part with where it lies."""
        self._held: list[torch.Tensor] = []
        """So that no memory is used twice."""
        self._inside: list[tuple[str, int, Any, int, list[torch.Tensor]]] = [("", 0, ((), {}), 0, [])]
        """The modules that are running: name, turn, what they were given, how many calls there were, and the large tensors that were made
        since."""
        self._turns: dict[str, int] = {}
        self._places: dict[tuple[str, int], int] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._leaf(tensor.detach(), name)

    def know(self, tensor: torch.Tensor, name: str) -> None:
        """Call a tensor by a name."""
        memory = memory_of(tensor)
        self._names.setdefault(memory, {})[key_of(tensor)] = name
        self._lying.setdefault(memory, []).append(name)
        self.values[name] = tensor
        self._bases.setdefault(memory, tensor)
        large = tensor.numel() > LARGE and memory not in self._lasting
        (self._inside[-1][-1] if large else self._held).append(tensor)

    def name(self, tensor: torch.Tensor) -> str:
        """What a tensor is called now."""
        memory = memory_of(tensor)
        known = self._known(tensor)
        if known is None:
            base = self._bases.get(memory)
            if base is not None and memory in self._stale:
                self._renew(memory, base)
            whole = None if base is None else self._known(base)
            if base is None or whole is None:
                self._leaf(tensor, f"constant {len(self.leaves)}")
            elif self._known(tensor) is None:
                self._made_up(seen_again, "view", (Ref(whole), *within(tensor, base)), tensor)
        return self._names[memory][key_of(tensor)]

    def _known(self, tensor: torch.Tensor) -> str | None:
        """What a tensor is called, where it is called anything."""
        return self._names.get(memory_of(tensor), {}).get(key_of(tensor))

    def enter(self, module: str, given: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """A module begins."""
        turn = self._turns.get(module, 0)
        self._turns[module] = turn + 1
        named = changed(lambda x: Ref(self.name(x)) if isinstance(x, torch.Tensor) else x, given)
        self._inside.append((module, turn, named, len(self.calls), []))

    def leave(self, handed: object) -> None:
        """The innermost module ends; of the large tensors that it made, those that it does not hand out are let go."""
        module, turn, given, first, large = self._inside.pop()
        handed_out = {at: x for at, x in enumerate(tree_leaves(handed)) if isinstance(x, torch.Tensor)}
        gives = {at: self.name(x) for at, x in handed_out.items()}
        self.modules.append(ModuleCall(module, turn, given, gives, first, len(self.calls)))
        out = {memory_of(each) for each in handed_out.values()}
        for tensor in large:
            memory = memory_of(tensor)
            if memory in out:
                self._inside[-1][-1].append(tensor)
                continue
            name = self._names.get(memory, {}).pop(key_of(tensor), None)
            self._bases.pop(memory, None)
            self._stale.pop(memory, None)  # the next tensor that lies there is another
            if name is not None:
                self.values.pop(name, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operator, and write it down."""
        if self._spelled and func in SPELLED:
            with self:
                return SPELLED[func](*args, **(kwargs or {}))
        reads: list[str] = []

        def seen(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            reads.append(self.name(x))
            return Ref(reads[-1])

        given, named = changed(seen, args), changed(seen, kwargs or {})
        written = writes(func)
        if written:
            self._keep_as_is(args[0])
        made = func(*args, **(kwargs or {}))
        results = list(made) if isinstance(made, tuple | list) else [made]
        index = len(self.calls)
        makes = tuple(f"{index}.{at}" if isinstance(each, torch.Tensor) else "" for at, each in enumerate(results))
        module, turn, *_ = self._inside[-1]
        place = self._places.get((module, turn), 0)
        self._places[module, turn] = place + 1
        name = operator_name(func)
        self.calls.append(Call(func, name, given, named, tuple(reads), makes, module, turn, place, written))
        if written:
            self._rewritten(results[0], makes[0])
        else:
            for each, called in zip(results, makes, strict=True):
                if called:
                    self.know(each, called)
        return made

    def _leaf(self, tensor: torch.Tensor, name: str) -> None:
        if self._known(tensor) is None:
            self.leaves[name] = tensor
            self._lasting.add(memory_of(tensor))
            self.know(tensor, name)

    def _keep_as_is(self, tensor: torch.Tensor) -> None:
        """Copy the values that lie where something is about to be written."""
        memory = memory_of(tensor)
        for name in self._lying.pop(memory, ()):
            if name in self.values and memory_of(self.values[name]) == memory:
                self.values[name] = self.values[name].clone()

    def _rewritten(self, tensor: torch.Tensor, name: str) -> None:
        """All that shares the memory of a tensor that was written into is made anew when it is looked at."""
        memory = memory_of(tensor)
        base = self._bases.get(memory, tensor)
        whole, writes = self._stale.pop(memory, (self._known(base), []))
        self._names.pop(memory, None)
        self.know(tensor, name)
        if key_of(base) != key_of(tensor) and whole is not None:
            self._stale[memory] = (whole, [*writes, (name, within(tensor, base))])

    def _renew(self, memory: int, base: torch.Tensor) -> None:
        """Make the base anew of what was written into parts of it."""
        whole, writes = self._stale.pop(memory)
        for part, at in writes:
            self._made_up(written_into, "slice_scatter", (Ref(whole), Ref(part), *at), base)
            whole = self._names[memory][key_of(base)]

    def _made_up(self, operator: Callable[..., Any], name: str, args: tuple[Any, ...], tensor: torch.Tensor) -> None:
        """A call that the model did not make, but might have."""
        made = f"{len(self.calls)}.0"
        module, turn, *_ = self._inside[-1]
        reads = tuple(each.name for each in args if isinstance(each, Ref))
        self.calls.append(Call(operator, name, args, {}, reads, (made,), module, turn, -1))
        self.know(tensor, made)


@cache
def operator_name(operator: Any) -> str:
    """ATen's name of an operator, without a mark that it works in place: `add` of `aten::add_.Tensor`."""
    name: str = operator.name().partition("::")[2].partition(".")[0]
    return name.rstrip("_") if writes(operator) else name


@cache
def writes(operator: Any) -> bool:
    """Whether an operator writes into its first argument."""
    name: str = operator.name().partition("::")[2].partition(".")[0]
    return name.endswith("_") and not name.endswith("__")


def _enter(
    recorder: Recorder, name: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    recorder.enter(name, (args, kwargs))


def _leave(recorder: Recorder, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
    recorder.leave(output)


@contextmanager
def _watching(model: PreTrainedModel, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which module is running."""
    hooks = []
    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(partial(_enter, recorder, name), with_kwargs=True))
            hooks.append(module.register_forward_hook(partial(_leave, recorder), always_call=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()
