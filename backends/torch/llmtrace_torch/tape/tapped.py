"""A run in which some values are looked at, or exchanged, as they pass.

A module's input and output are seen by hooks. What an operator makes or reads is seen by a dispatch mode that is on while the module that calls it
runs, and off elsewhere, in the modules that it calls too: it changes no kernel, and costs a call in Python for each operator there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from llmtrace_torch.tape.record import operator_name, writes
from llmtrace_torch.tape.taps import Tap

Hand: TypeAlias = Callable[[Tap, torch.Tensor], torch.Tensor | None]
"""Receives what passes at a tap, and may return what is to pass on instead."""
Wanted: TypeAlias = Mapping[tuple[str, int], list[Tap]]
"""Of one call of a module: the operator and how often it was called before, to the taps of what it makes and reads."""
DISPATCHED = ("made", "read")
"""Ports that the dispatch mode sees."""
NOTHING: Wanted = {}


@contextmanager
def tapped(modules: Mapping[str, torch.nn.Module], taps: Sequence[Tap], hand: Hand) -> Iterator[None]:
    """While this is entered, `hand` gets the tensor of each tap when it passes. On the way out every hook is removed."""
    with Fitted(modules, taps).watched(hand):
        yield


class Fitted:
    """Which hooks some taps need. Many runs look at the same: what is found of the taps is found once."""

    def __init__(self, modules: Mapping[str, torch.nn.Module], taps: Sequence[Tap]) -> None:
        watched = {tap.module for tap in taps if tap.port in DISPATCHED}
        ports: dict[str, dict[tuple[str, int], list[Tap]]] = {}
        self._wanted: dict[tuple[str, int], dict[tuple[str, int], list[Tap]]] = {}
        for tap in taps:
            if tap.port in DISPATCHED:
                made = self._wanted.setdefault((tap.module, tap.turn), {})
                made.setdefault((tap.operator, tap.place), []).append(tap)
            else:
                ports.setdefault(tap.module, {}).setdefault((tap.port, tap.turn), []).append(tap)
        self._hooks = [
            (name, modules[name], ports.get(name, {}), _inside(name, watched))
            for name in modules
            if name in ports or _inside(name, watched)
        ]

    @contextmanager
    def watched(self, hand: Hand) -> Iterator[None]:
        """As `tapped`."""
        watch = Watch(self._wanted, hand)
        hooks: list[Any] = []
        try:
            for name, module, ports, inside in self._hooks:
                if inside:
                    hooks.append(module.register_forward_pre_hook(watch.entering(name)))
                if ports:
                    here = Here(ports, watch.unheard if self._wanted else hand)
                    if any(port == "in" for port, _ in ports):
                        hooks.append(module.register_forward_pre_hook(here.before, with_kwargs=True))
                    hooks.append(module.register_forward_hook(here.after))
                if inside:
                    hooks.append(module.register_forward_hook(watch.leaving, always_call=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            watch.stop()


def _inside(name: str, watched: set[str]) -> bool:
    """Whether a module is watched, or lies in one that is."""
    if not watched or name in watched or "" in watched:
        return bool(watched)
    parts = name.split(".")
    return any(".".join(parts[:end]) in watched for end in range(1, len(parts)))


class Here:
    """The taps of one module's input and output."""

    def __init__(self, ports: Mapping[tuple[str, int], Sequence[Tap]], hand: Hand) -> None:
        self._hand = hand
        self._turn = 0
        self._ports = ports

    def before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at what the module is given."""
        return self._look("in", (args, kwargs))

    def after(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Look at what it returns."""
        changed = self._look("out", output)
        self._turn += 1
        return changed

    def _look(self, port: str, values: Any) -> Any:
        """Hand over each tensor that is asked for. Returns the values with what was exchanged, or None where nothing was."""
        taps = self._ports.get((port, self._turn))
        if not taps:
            return None
        if isinstance(values, torch.Tensor):  # as most outputs are: to take it apart would cost more than to look
            whole = None
            for tap in taps:
                instead = self._hand(tap, values)
                if instead is not None:
                    values = whole = instead
            return whole
        leaves, shape = tree_flatten(values)
        changed = False
        for tap in taps:
            instead = self._hand(tap, leaves[tap.place])
            if instead is not None:
                leaves[tap.place], changed = instead, True
        return tree_unflatten(leaves, shape) if changed else None


class Watch(TorchDispatchMode):
    """Counts the operators of the modules that are watched, and hands over the results that are asked for."""

    def __init__(self, wanted: Mapping[tuple[str, int], Wanted], hand: Hand) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hand = hand
        self._wanted = wanted
        self._deaf = False
        self._on = False
        self._turns: dict[str, int] = {}
        self._inside: list[tuple[Wanted, dict[str, int]]] = []
        """Of the modules that run, from the first that is watched: what is wanted of each, and how often it called which operator."""

    def unheard(self, tap: Tap, tensor: torch.Tensor) -> torch.Tensor | None:
        """Hand over what a hook sees: operators that are called meanwhile are not the model's."""
        self._deaf = True
        try:
            return self._hand(tap, tensor)
        finally:
            self._deaf = False

    def entering(self, name: str) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        """A hook for where a module begins that is watched, or lies in one."""

        def enter(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            turn = self._turns.get(name, 0)
            self._turns[name] = turn + 1
            self._inside.append((self._wanted.get((name, turn), NOTHING), {}))
            self._listen()

        return enter

    def leaving(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A hook for where the innermost of them ends."""
        self._inside.pop()
        self._listen()

    def stop(self) -> None:
        """Whatever was left running by an error ends."""
        self._inside.clear()
        self._listen()

    def _listen(self) -> None:
        """Be on where something is wanted of what runs now, and off elsewhere."""
        wanted = bool(self._inside and self._inside[-1][0])
        if wanted and not self._on:
            self.__enter__()  # type: ignore[no-untyped-call]
        elif self._on and not wanted:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._on = wanted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the operator as it is; what is handed over and exchanged passes on instead."""
        if self._deaf:
            return func(*args, **(kwargs or {}))
        wanted, counts = self._inside[-1]
        name = operator_name(func)
        count = counts[name] = counts.get(name, -1) + 1
        taps = wanted.get((name, count))
        if taps is None:
            return func(*args, **(kwargs or {}))
        args, kwargs = self._read(taps, args, kwargs or {})
        made = func(*args, **kwargs)
        for tap in taps:
            if tap.port == "read":
                continue
            changed = self._hand(tap, made[tap.result] if isinstance(made, tuple | list) else made)
            if changed is not None:
                made = _exchanged(func, made, tap.result, changed)
        return made

    def _read(
        self, taps: Sequence[Tap], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hand over what an operator is about to read. Returns what it is to read."""
        if all(tap.port != "read" for tap in taps):
            return args, kwargs
        leaves, shape = tree_flatten((args, kwargs))
        tensors = [at for at, each in enumerate(leaves) if isinstance(each, torch.Tensor)]
        for tap in taps:
            if tap.port == "read":
                changed = self._hand(tap, leaves[tensors[tap.result]])
                leaves[tensors[tap.result]] = leaves[tensors[tap.result]] if changed is None else changed
        given: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(leaves, shape)
        return given


def _exchanged(operator: Any, made: Any, result: int, changed: torch.Tensor) -> Any:
    """What an operator made, with one result exchanged: where it wrote into what it was given, so does the change."""
    if writes(operator):
        return made.copy_(changed)
    if isinstance(made, tuple | list):
        return type(made)(changed if at == result else each for at, each in enumerate(made))
    return changed
