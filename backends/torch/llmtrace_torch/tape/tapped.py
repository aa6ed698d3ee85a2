"""A run in which some values are looked at, or exchanged, as they pass.

A module's input and output are seen by hooks. What an operator makes is seen by a dispatch mode that is on while the module that calls it
runs, and off elsewhere: it changes no kernel, and costs a call in Python for each operator there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from llmtrace_torch.tape.record import operator_name
from llmtrace_torch.tape.taps import Tap, within

Hand: TypeAlias = Callable[[Tap, torch.Tensor], torch.Tensor | None]
"""Receives what passes at a tap, and may return what is to pass on instead."""


@contextmanager
def tapped(modules: Mapping[str, torch.nn.Module], taps: Sequence[Tap], hand: Hand) -> Iterator[None]:
    """While this is entered, `hand` gets the tensor of each tap when it passes. On the way out every hook is removed."""
    watched = {tap.module for tap in taps if tap.port == "made"}
    inside = {name for name in modules for each in watched if within(name, each)}
    ports: dict[str, list[Tap]] = {}
    for tap in taps:
        if tap.port != "made":
            ports.setdefault(tap.module, []).append(tap)
    watch = Watch(taps, hand)
    with ExitStack() as stack:
        for name in dict.fromkeys((*ports, *inside)):
            module = modules[name]
            if name in inside:
                stack.callback(module.register_forward_pre_hook(partial(_enter, watch, name)).remove)
            if name in ports:
                here = Here(ports[name], watch.unheard)
                stack.callback(module.register_forward_pre_hook(here.before, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(here.after).remove)
            if name in inside:
                stack.callback(module.register_forward_hook(partial(_leave, watch), always_call=True).remove)
        stack.callback(watch.stop)
        yield


class Here:
    """The taps of one module's input and output."""

    def __init__(self, taps: Sequence[Tap], hand: Hand) -> None:
        self._hand = hand
        self._turn = 0
        self._ports: dict[tuple[str, int], list[Tap]] = {}
        for tap in taps:
            self._ports.setdefault((tap.port, tap.turn), []).append(tap)

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
        leaves, shape = tree_flatten(values)
        changed = False
        for tap in taps:
            instead = self._hand(tap, leaves[tap.place])
            if instead is not None:
                leaves[tap.place], changed = instead, True
        return tree_unflatten(leaves, shape) if changed else None


class Watch(TorchDispatchMode):
    """Counts the operators of the modules that are watched, and hands over the results that are asked for."""

    def __init__(self, taps: Sequence[Tap], hand: Hand) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hand = hand
        self._wanted: dict[tuple[str, int], dict[tuple[str, int], list[Tap]]] = {}
        for tap in taps:
            if tap.port == "made":
                here = self._wanted.setdefault((tap.module, tap.turn), {})
                here.setdefault((tap.operator, tap.place), []).append(tap)
        self._deaf = False
        self._turns: dict[str, int] = {}
        self._inside: list[tuple[dict[tuple[str, int], list[Tap]], dict[str, int]]] = []
        """Of the modules that run, from the first that is watched: what is wanted of each, and how often it called which operator."""

    def unheard(self, tap: Tap, tensor: torch.Tensor) -> torch.Tensor | None:
        """Hand over what a hook sees: operators that are called meanwhile are not the model's."""
        self._deaf = True
        try:
            return self._hand(tap, tensor)
        finally:
            self._deaf = False

    def enter(self, module: str) -> None:
        """A module begins that is watched, or lies in one."""
        turn = self._turns.get(module, 0)
        self._turns[module] = turn + 1
        if not self._inside:
            self.__enter__()  # type: ignore[no-untyped-call]
        self._inside.append((self._wanted.get((module, turn), {}), {}))

    def leave(self) -> None:
        """The innermost of them ends."""
        self._inside.pop()
        if not self._inside:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Whatever was left running by an error ends."""
        while self._inside:
            self.leave()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the operator as it is; what is handed over and exchanged passes on instead."""
        made = func(*args, **(kwargs or {}))
        if self._deaf:
            return made
        wanted, counts = self._inside[-1]
        if not wanted:
            return made
        name = operator_name(func)
        counts[name] = counts.get(name, -1) + 1
        for tap in wanted.get((name, counts[name]), ()):
            several = isinstance(made, tuple | list)
            changed = self._hand(tap, made[tap.result] if several else made)
            if changed is not None:
                made = (
                    type(made)(changed if at == tap.result else each for at, each in enumerate(made))
                    if several
                    else changed
                )
        return made


def _enter(watch: Watch, name: str, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    watch.enter(name)


def _leave(watch: Watch, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
    watch.leave()
