"""One open model whose spec was read off its tapes. A run is one forward pass, in which the values of the requested sites are looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from llmtrace.dataflow.forms import held_by
from llmtrace.dataflow.weights import SourcedWeights
from llmtrace.errors import ModelOpenError
from llmtrace.overlaid import Over
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.spec import ModelSpec
from llmtrace.threads import runtime_has_processors
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_torch.arithmetic import TorchArithmetic
from llmtrace_torch.batches import BatchedSession, padded
from llmtrace_torch.rotary import forgetful
from llmtrace_torch.tape.found import Found
from llmtrace_torch.tape.replaced import Replacing
from llmtrace_torch.tape.run import Looking, Run, Wanted
from llmtrace_torch.tape.tapped import Fitted


class TapedSession(BatchedSession):
    """An open transformers model; it also has `weights` and `stored`, edits, replaces weights, and runs several prompts at once."""

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
        self.lasting: Collection[str] = found.lasting
        self.arithmetic = TorchArithmetic()
        self._replacing = Replacing(found.weights, found.filed, found.leaves)
        self.replaceable: Collection[str] = self._replacing.replaceable
        self.irreplaceable: Mapping[str, str] = self._replacing.irreplaceable
        self.tied: Collection[Collection[str]] = self._replacing.tied
        self.model: PreTrainedModel | None = model
        self._modules = dict(model.named_modules())
        self._found = found
        self._steps = steps(found.spec)
        self._last: tuple[tuple[frozenset[str], frozenset[str]], Looking, Fitted] | None = None
        self._blocks = len(found.spec.blocks)

    def run_many(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        """As every session that runs batches; prompts run alone where a value has no axis of tokens, as rows of all choices of all tokens."""
        if any(self._merged(site) for each in requests for site in (*each.cuts, *each.edits)):
            for request, observer in zip(requests, observers, strict=True):
                self.run(request, observer)
        else:
            super().run_many(requests, observers)

    def _merged(self, site: str) -> bool:
        """Whether the tokens of several prompts could not be told apart in a site's value."""
        passing = [self._found.passing[name] for name in held_by(self._found.places[site])]
        return any(not each.axes or (each.editable is not None and not each.edited_axes) for each in passing)

    def _forward(self, requests: Sequence[Request], observers: Sequence[Observer]) -> None:
        model = self._check_open()
        rows, ids = padded(requests, model.device)
        wanted = [Wanted(*each, {}) for each in zip(rows, requests, observers, strict=True)]
        looking, fitted = self._fitted(
            frozenset(site for each in requests for site in (*each.cuts, *each.edits)),
            frozenset(site for each in requests for site in each.edits),
        )
        run = Run(looking, self._blocks, wanted)
        with (
            torch.no_grad(),
            runtime_has_processors(),
            forgetful(self._modules.values()),
            fitted.watched(run.hand),
        ):
            model(ids, use_cache=False)
        run.finish()

    def _check_open(self) -> PreTrainedModel:
        if self.model is None:
            raise ModelOpenError(f"The model {self.info.source} is closed: open it again.")
        return self.model

    def _fitted(self, asked: frozenset[str], edited: frozenset[str]) -> tuple[Looking, Fitted]:
        """Where to look for some sites, and the hooks for that: found once for those that were asked for last."""
        if self._last is None or self._last[0] != (asked, edited):
            looking = Looking(self._found, self._steps, self._blocks, asked, edited)
            self._last = ((asked, edited), looking, Fitted(self._modules, list(looking.taps)))
        return self._last[1:]

    @contextmanager
    def replaced(self, weights: Mapping[str, Array]) -> Iterator[None]:
        """Compute with other weights, rounded to the type that the model has them in."""
        self._check_open()
        own = self.weights
        try:
            with self._replacing.replaced(weights) as held:
                self.weights = Over(held, own)
                yield
        finally:
            self.weights = own

    def close(self) -> None:
        """Let go of the model."""
        super().close()
        self._last = None
