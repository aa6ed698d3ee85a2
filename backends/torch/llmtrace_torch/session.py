"""One open model. A run is one forward pass with hooks where the requested sites show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from attrs import frozen
from transformers import PreTrainedModel

from llmtrace.edits import Change
from llmtrace.errors import ModelOpenError
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.selection import Cut
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_torch.batches import BatchedSession, Row, padded
from llmtrace_torch.capture import edit, extract, hooked
from llmtrace_torch.locate import Located, Place, choices
from llmtrace_torch.rotary import forgetful


@frozen
class _Wanted:
    """One prompt of a running batch."""

    row: Row
    cuts: Mapping[str, Cut]
    edits: Mapping[str, Sequence[Change]]
    observer: Observer


class TorchSession(BatchedSession):
    """An open transformers model; it also has `weights` and `stored`, edits, and runs several prompts at once."""

    def __init__(
        self,
        model: PreTrainedModel,
        spec: ModelSpec,
        info: ModelInfo,
        tokenizer: Tokenizer | None,
        located: Located,
        offers: Mapping[str, Offer],
        gaps: Mapping[str, Gap],
        weights: Mapping[str, Array],
        stored: Mapping[str, str],
    ) -> None:
        self.info = info
        self.spec = spec
        self.tokenizer = tokenizer
        self.offers = offers
        self.gaps = gaps
        self.weights = weights
        self.stored = stored
        self.editable: Collection[str] = tuple(located.editable)
        self.model: PreTrainedModel | None = model
        self._located = located
        self._modules = dict(model.named_modules())
        self._steps = steps(spec)
        self._choices = choices(spec)

    def _forward(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        if self.model is None:
            raise ModelOpenError(f"The model {self.info.source} is closed: open it again.")
        rows, ids = padded(requests, self.model.device)
        wanted = [
            _Wanted(row, request.cuts, request.edits, observer)
            for row, request, observer in zip(rows, requests, observers, strict=True)
        ]
        asked = {site for request in requests for site in request.cuts}
        edited = {site for request in requests for site in request.edits}
        places = {
            site: self._located.editable[site] if site in edited else self._located.places[site]
            for site in self._steps  # in dataflow order: where two sites are one tensor, an edit of the second leaves the first
            if site in asked or site in edited
        }
        taps = {site: place.tap for site, place in places.items()}

        def done(layer: int) -> None:
            for each in wanted:
                each.observer.layer_done(layer)

        blocks = self._located.body.blocks
        hooks = hooked(self.model, self._modules, taps, self._choices, self._handing(wanted, places), done, blocks)
        with torch.no_grad(), forgetful(self._modules.values()), hooks:
            self.model(ids, use_cache=False)

    def _handing(
        self, wanted: Sequence[_Wanted], places: Mapping[str, Place]
    ) -> Callable[[str, torch.Tensor], torch.Tensor | None]:
        def hand(site: str, tensor: torch.Tensor) -> torch.Tensor | None:
            place, step = places[site], self._steps[site]
            changed = False
            for each in wanted:
                if site in each.edits:
                    tensor = edit(tensor, place.tap, step, each.edits[site], each.row, place.divisor)
                    changed = True
            for each in wanted:
                if site in each.cuts:
                    array = extract(tensor, place.tap, step, each.cuts[site], each.row, place.divisor)
                    each.observer.signal(site, array)
            return tensor if changed else None

        return hand
