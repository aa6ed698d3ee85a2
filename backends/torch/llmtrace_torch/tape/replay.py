"""Parts of a tape, run again on what is given: in float32 at least, whatever the model computes in. What a part does is seen more sharply so than
it is done; numbers that are stored in half precision stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llmtrace.dataflow.graph import Flow
from llmtrace.errors import BackendError
from llmtrace.schema.sites import Array
from llmtrace_torch.arrays import as_numpy, as_tensor
from llmtrace_torch.tape.lengths import Linear
from llmtrace_torch.tape.nested import changed
from llmtrace_torch.tape.record import LENGTH, TOKENS, Call, Ref

HALF = (torch.float16, torch.bfloat16)


class Replay:
    """What runs parts of one tape, as `llmtrace.dataflow.pieces` asks for."""

    def __init__(
        self, flow: Flow, calls: Sequence[Call], leaves: Mapping[str, torch.Tensor], device: torch.device
    ) -> None:
        self.flow = flow
        """The tape as a graph, and what is content in it."""
        self._calls = calls
        self._leaves = leaves
        self._device = device
        self._makers = {name: place for place, call in enumerate(calls) for name in call.makes if name}
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Call]] = {}

    def run(self, given: Mapping[str, Array], wanted: Sequence[str], tokens: int) -> dict[str, Array]:
        """The wanted values for a prompt of so many tokens, some values taken as given.

        Raises `BackendError` where an operator does not take what it is given, as a table that ends before the prompt.
        """
        known = {name: _wide(as_tensor(array).to(self._device)) for name, array in given.items()}

        def look(x: Any) -> Any:
            if isinstance(x, Linear):
                return x.at(tokens)
            if isinstance(x, Ref):
                return self._leaf(x.name, known, tokens)
            return torch.float32 if x in HALF and isinstance(x, torch.dtype) else x

        with torch.no_grad():
            for call in self._plan(tuple(given), tuple(wanted)):
                try:
                    args, kwargs = changed(look, call.args), changed(look, dict(call.kwargs))
                    if call.writes:
                        args = (args[0].clone(), *args[1:])
                    made = call.operator(*args, **kwargs)
                except (RuntimeError, IndexError, ValueError) as error:
                    raise BackendError(
                        f"{call.name} in {call.module} cannot be run again for {tokens} tokens: {error}"
                    ) from error
                results = made if isinstance(made, tuple | list) else [made]
                known |= {
                    name: each for name, each in zip(call.makes, results, strict=True) if name and name not in given
                }
        return {name: as_numpy(self._leaf(name, known, tokens)) for name in wanted}

    def _leaf(self, name: str, known: Mapping[str, torch.Tensor], tokens: int) -> torch.Tensor:
        if name in known:
            return known[name]
        if name == TOKENS:
            return torch.zeros(1, tokens, dtype=torch.long, device=self._device)
        return torch.tensor(tokens) if name == LENGTH else _wide(self._leaves[name])

    def _plan(self, given: tuple[str, ...], wanted: tuple[str, ...]) -> list[Call]:
        """The calls that the wanted values need, back to what is given."""
        key = (given, wanted)
        if key not in self._plans:
            needed: set[int] = set()
            seen, waiting = set(given), list(wanted)
            while waiting:
                name = waiting.pop()
                if name in seen:
                    continue
                seen.add(name)
                if (place := self._makers.get(name)) is not None and place not in needed:
                    needed.add(place)
                    waiting += self._calls[place].reads
            self._plans[key] = [self._calls[place] for place in sorted(needed)]
        return self._plans[key]


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor
