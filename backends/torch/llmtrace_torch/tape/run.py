"""One forward pass: what passes at its taps, changed where that was asked for, and handed out in the order that the protocol promises."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import torch
from attrs import frozen

from llmtrace.dataflow.forms import Form, held_by, shown
from llmtrace.errors import BackendError
from llmtrace.protocol import Observer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import stage_of
from llmtrace_torch.arrays import as_numpy, as_tensor
from llmtrace_torch.batches import Row
from llmtrace_torch.tape.found import Found
from llmtrace_torch.tape.taps import Passing, Tap

UNKEPT = 2
"""What `sys.getrefcount` says of a local variable's object that is referred to by nothing else."""


@frozen(eq=False)
class Wanted:
    """One prompt of a running batch, and what of it has come."""

    row: Row
    request: Request
    observer: Observer
    values: dict[str, Array]
    """Values that wait for others that belong to the same site."""


@frozen(eq=False)
class _Handed:
    """What was handed over and may have been kept: nothing may write there until the run is over."""

    site: str
    tensor: weakref.ref[torch.Tensor]
    """Dead where nobody kept it."""
    version: int
    """Of its memory, which PyTorch counts up whenever an operator writes there."""


@frozen(eq=False)
class _Site:
    """One site, for a run."""

    name: str
    value: str
    form: Form
    held: tuple[str, ...]
    """The values that it is put together of."""
    stage: int
    lasts: bool


class Looking:
    """Where to look for some sites. Many runs look at the same."""

    def __init__(
        self, found: Found, table: Collection[str], blocks: int, asked: Collection[str], edited: Collection[str]
    ) -> None:
        changed = {found.places[site][0] for site in edited}
        self.sites: dict[str, list[_Site]] = {}
        """Value to the sites that wait for it, in dataflow order."""
        self.shared: set[str] = set()
        """Values of sites that are put together of several: what came of them is kept."""
        for name in table:
            if name in asked:
                value, form = found.places[name]
                held = held_by((value, form))
                site = _Site(name, value, form, held, stage_of(name, blocks), name in found.lasting and not edited)
                self.shared.update(held if len(held) > 1 else ())
                for each in held:
                    self.sites.setdefault(each, []).append(site)
        self.taps: dict[Tap, list[tuple[str, tuple[int, ...]]]] = {}
        """Where to look, for which values, and which axes of theirs grow."""
        for value in self.sites:
            passing: Passing = found.passing[value]
            if value in changed and passing.editable is not None:
                self.taps.setdefault(passing.editable, []).append((value, passing.edited_axes))
            else:
                self.taps.setdefault(passing.tap, []).append((value, passing.axes))


class Run:
    """One forward pass, and what is to be handed out of it."""

    def __init__(self, looking: Looking, blocks: int, wanted: Sequence[Wanted]) -> None:
        self._looking = looking
        self._wanted = wanted
        self._blocks = blocks
        self._done = 0
        self._edited = {site for each in wanted for site in each.request.edits}
        self._unchanged = set(self._edited)
        """Sites whose edits have not been made yet."""
        self._handed: list[_Handed] = []
        self._left: Counter[int] = Counter()
        """How many signals of each stage are still to come."""
        self._open = -1
        """The first stage of which any are."""
        self._early: list[tuple[Wanted, _Site, Array]] = []
        """Signals that passed before some of an earlier stage."""
        for value, sites in looking.sites.items():
            for site in sites:
                if value == site.value:
                    self._left[site.stage] += sum(site.name in each.request.cuts for each in wanted)
        self._next()

    def hand(self, tap: Tap, tensor: torch.Tensor) -> torch.Tensor | None:
        """Change what passes where that was asked for, then hand it out."""
        changed = False
        for name, axes in self._looking.taps[tap]:
            for site in self._looking.sites[name]:  # in dataflow order: an edit does not show in what comes before
                for each in self._wanted:
                    if site.name in self._edited and site.name in each.request.edits:
                        tensor = tensor if changed else _copy(tensor)
                        changed = True
                        self._edit(each, site, tensor, axes)
                    if site.name in each.request.cuts:
                        self._show(each, site, name, each.row.of(tensor, axes))
        return tensor if changed else None

    def _edit(self, one: Wanted, site: _Site, tensor: torch.Tensor, axes: tuple[int, ...]) -> None:
        mine = one.row.of(tensor, axes)
        array = np.array(as_numpy(mine), order="C")
        natural = np.array(site.form.natural(array, one.row.length))
        for change in one.request.edits[site.name]:
            change.apply(natural)
        site.form.put(array, natural)
        mine.copy_(as_tensor(array).to(mine.device))
        self._unchanged.discard(site.name)

    def _show(self, one: Wanted, site: _Site, value: str, tensor: torch.Tensor) -> None:
        array = as_numpy(tensor)
        if value in self._looking.shared:
            one.values[value] = array
            if not all(each in one.values for each in site.held):
                return
            array = shown(site.form, site.value, one.values, one.row.length)
        else:
            array = site.form.natural(array, one.row.length)
        array = one.request.cuts[site.name].apply(array).view()
        array.flags.writeable = False
        if site.stage > self._open:
            self._early.append((one, site, array.copy()))
            return
        behind = _behind(array) if site.lasts else None
        version = 0 if behind is None else behind._version
        self._give(one, site, array)
        del array
        if behind is not None and sys.getrefcount(behind) > UNKEPT:
            self._handed.append(_Handed(site.name, weakref.ref(behind), version))

    def _give(self, one: Wanted, site: _Site, array: Array) -> None:
        """Hand over, and all that was early for this."""
        self._close(site.stage)
        one.observer.signal(site.name, array)
        self._left[site.stage] -= 1
        self._next()
        if not self._early:
            return
        ripe = [each for each in self._early if each[1].stage <= self._open]
        self._early = [each for each in self._early if each[1].stage > self._open]
        for each in sorted(ripe, key=lambda each: each[1].stage):
            self._give(*each)

    def _next(self) -> None:
        while self._open < self._blocks and not self._left[self._open]:
            self._open += 1

    def _close(self, stage: int) -> None:
        while self._done < min(stage, self._blocks):
            for each in self._wanted:
                each.observer.layer_done(self._done)
            self._done += 1

    def finish(self) -> None:
        """Close the blocks that are left. Raises `BackendError` for an edit of what did not pass in this run, and where the model wrote into
        what it was said to leave as it is.
        """
        for one, site, array in sorted(self._early, key=lambda each: each[1].stage):
            self._close(site.stage)
            one.observer.signal(site.name, array)
        self._close(self._blocks)
        if missing := sorted(self._unchanged):
            raise BackendError(
                f"{missing[0]} was to be edited, and the model did not compute it as it does for other prompts: edit another site."
            )
        for each in self._handed:
            tensor = each.tensor()
            if tensor is not None and tensor._version != each.version:
                raise BackendError(
                    f"The model wrote into {each.site} after it had been handed over, which it did not do when it was opened: what was kept of "
                    "this run is not what the model computed there. Stream this prompt instead of keeping it."
                )


def _behind(array: Array) -> torch.Tensor | None:
    """The tensor whose memory an array lies in; None where it has its own."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, torch.Tensor) else None


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that lies in memory as the tensor does, so that the model calls the same operators on it."""
    try:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(
            tensor
        )
    except RuntimeError:  # some of its numbers share their memory
        return tensor.clone()
