"""One open model whose spec was read off its tapes. A run is one forward pass, in which the values of the requested sites are looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from attrs import frozen
from transformers import PreTrainedModel

from llmtrace.dataflow.forms import Form, held_by, shown
from llmtrace.dataflow.weights import SourcedWeights
from llmtrace.errors import BackendError, ModelOpenError
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import stage_of, steps
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_torch.arrays import as_numpy, as_tensor
from llmtrace_torch.batches import BatchedSession, Row, padded
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.found import Found
from llmtrace_torch.tape.tapped import tapped
from llmtrace_torch.tape.taps import Passing, Tap


@frozen(eq=False)
class _Wanted:
    """One prompt of a running batch, and what of it has come."""

    row: Row
    request: Request
    observer: Observer
    values: dict[str, Array]
    """Values that wait for others that belong to the same site."""


class TapedSession(BatchedSession):
    """An open transformers model; it also has `weights` and `stored`, edits, and runs several prompts at once."""

    def __init__(
        self,
        model: PreTrainedModel,
        found: Found,
        info: ModelInfo,
        tokenizer: Tokenizer | None,
    ) -> None:
        self.info = info
        self.spec: ModelSpec = found.spec
        self.tokenizer = tokenizer
        self.offers: Mapping[str, Offer] = found.offers
        self.gaps: Mapping[str, Gap] = found.gaps
        self.weights: Mapping[str, Array] = SourcedWeights(found.weights)
        self.stored: Mapping[str, str] = found.stored
        self.editable: Collection[str] = tuple(found.editable)
        self.model: PreTrainedModel | None = model
        self._modules = dict(model.named_modules())
        self._found = found
        self._steps = steps(found.spec)
        self._blocks = len(found.spec.blocks)

    def _forward(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        if self.model is None:
            raise ModelOpenError(f"The model {self.info.source} is closed: open it again.")
        rows, ids = padded(requests, self.model.device)
        wanted = [_Wanted(*each, {}) for each in zip(rows, requests, observers, strict=True)]
        run = _Run(self._found, self._steps, self._blocks, wanted)
        with torch.no_grad(), forgetful(self._modules.values()), tapped(self._modules, list(run.taps), run.hand):
            self.model(ids, use_cache=False)
        run.finish()


class _Run:
    """One forward pass, and what is to be handed out of it."""

    def __init__(self, found: Found, table: Mapping[str, object], blocks: int, wanted: Sequence[_Wanted]) -> None:
        self._found = found
        self._wanted = wanted
        self._blocks = blocks
        self._done = 0
        asked = {site for each in wanted for site in (*each.request.cuts, *each.request.edits)}
        edited = {site for each in wanted for site in each.request.edits}
        changed = {found.places[site][0] for site in edited}
        self._unchanged = edited
        """Sites whose edits have not been made yet."""
        self._sites: dict[str, list[str]] = {}
        """Value to the sites that wait for it, in dataflow order."""
        for site in table:
            if site in asked:
                for name in held_by(found.places[site]):
                    self._sites.setdefault(name, []).append(site)
        together = [held_by(found.places[site]) for site in asked]
        self._shared = {name for names in together if len(names) > 1 for name in names}
        """Values of sites that are put together of several: what came of them is kept."""
        self.taps: dict[Tap, list[str]] = {}
        """Where to look, for which values."""
        for name in self._sites:
            passing: Passing = found.passing[name]
            tap = passing.editable if name in changed and passing.editable is not None else passing.tap
            self.taps.setdefault(tap, []).append(name)

    def hand(self, tap: Tap, tensor: torch.Tensor) -> torch.Tensor | None:
        """Change what passes where that was asked for, then hand it out."""
        changed = False
        for name in self.taps[tap]:
            passing = self._found.passing[name]
            axes = passing.edited_axes if tap == passing.editable else passing.axes
            for site in self._sites[name]:
                form = self._found.places[site][1]
                for each in self._wanted:
                    if site in each.request.edits:
                        tensor = tensor if changed else _copy(tensor)
                        changed = True
                        self._edit(each, site, form, tensor, axes)
                    if site in each.request.cuts:
                        self._show(each, site, name, each.row.of(tensor, axes))
        return tensor if changed else None

    def _edit(self, one: _Wanted, site: str, form: Form, tensor: torch.Tensor, axes: tuple[int, ...]) -> None:
        mine = one.row.of(tensor, axes)
        array = np.array(as_numpy(mine), order="C")
        natural = np.array(form.natural(array, one.row.length))
        for change in one.request.edits[site]:
            change.apply(natural)
        form.put(array, natural)
        mine.copy_(as_tensor(array).to(mine.device))
        self._unchanged.discard(site)

    def _show(self, one: _Wanted, site: str, name: str, tensor: torch.Tensor) -> None:
        place = self._found.places[site]
        one.values[name] = as_numpy(tensor)
        if not all(each in one.values for each in held_by(place)):
            return
        self._close(stage_of(site, self._blocks))
        array = one.request.cuts[site].apply(shown(place[1], place[0], one.values, one.row.length)).view()
        array.flags.writeable = False
        one.observer.signal(site, array)
        if name not in self._shared:
            one.values.pop(name, None)

    def _close(self, stage: int) -> None:
        while self._done < min(stage, self._blocks):
            for each in self._wanted:
                each.observer.layer_done(self._done)
            self._done += 1

    def finish(self) -> None:
        """Close the blocks that are left. Raises `BackendError` for an edit of what did not pass in this run."""
        self._close(self._blocks)
        if missing := sorted(self._unchanged):
            raise BackendError(
                f"{missing[0]} was to be edited, and the model did not compute it as it does for other prompts: edit another site."
            )


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that lies in memory as the tensor does, so that the model calls the same operators on it."""
    try:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(
            tensor
        )
    except RuntimeError:  # some of its numbers share their memory
        return tensor.clone()
