"""One open graph. A run is one call of ONNX Runtime, or several where what is asked for would not fit beside each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from llmtrace.dataflow.forms import held_by, shown
from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.weights import SourcedWeights
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import stage_of, steps
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_onnxruntime.edited import Editor
from llmtrace_onnxruntime.inputs import Inputs
from llmtrace_onnxruntime.offers import gaps
from llmtrace_onnxruntime.running import Runner

MIB = 1 << 20


class OnnxRuntimeSession:
    """An open graph; it also has `weights` and `stored`, and edits."""

    def __init__(
        self,
        runner: Runner,
        editor: Editor,
        inputs: Inputs,
        read: ReadModel,
        info: ModelInfo,
        tokenizer: Tokenizer | None,
        stored: Mapping[str, str],
        offered: Mapping[str, Offer],
        held: int,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.spec: ModelSpec = read.spec
        self.weights: Mapping[str, Array] = SourcedWeights(read.weights)
        self.stored = stored
        self.offers: Mapping[str, Offer] = offered
        self.gaps: Mapping[str, Gap] = gaps(read)
        self.editable: Collection[str] = tuple(
            site for site in editor.editable if not steps(read.spec)[site].equation.integer
        )
        self.names: Mapping[str, str] = {site: name for site, (name, _) in read.places.items()}
        self._held = held * MIB
        self._runner = runner
        self._editor = editor
        self._inputs = inputs
        self._places = read.places
        self._steps = steps(read.spec)
        self._blocks = len(read.spec.blocks)

    def run(self, request: Request, observer: Observer) -> None:
        """One forward pass. An exception of the observer stops it and is passed on."""
        feeds, done = self._inputs.arrays(request.tokens), 0
        for group in self._groups(request):
            signals = self._signals(feeds, request, group)
            for site in group:
                while done < min(stage_of(site, self._blocks), self._blocks):
                    observer.layer_done(done)
                    done += 1
                observer.signal(site, request.cuts[site].apply(signals.pop(site)))
        while done < self._blocks:
            observer.layer_done(done)
            done += 1

    def _signals(self, feeds: Mapping[str, Array], request: Request, sites: list[str]) -> dict[str, Array]:
        """Some of the signals that are asked for, whole."""
        tokens = len(request.tokens)
        if request.edits:
            return self._editor.run(feeds, request.edits, tokens, sites)
        places = {site: self._places[site] for site in sites}
        values = self._runner.run(
            feeds, list(dict.fromkeys(name for place in places.values() for name in held_by(place)))
        )
        return {site: shown(form, value, values, tokens) for site, (value, form) in places.items()}

    def _groups(self, request: Request) -> Iterator[list[str]]:
        """The sites that are asked for, in layer order, as many at a time as may be held at once."""
        tokens, group, held = len(request.tokens), list[str](), 0
        for site in sorted(request.cuts, key=lambda site: stage_of(site, self._blocks)):
            size = 4
            for length in self._steps[site].shape(tokens):
                size *= length
            if group and held + size > self._held:
                yield group
                group, held = [], 0
            group.append(site)
            held += size
        if group:
            yield group

    def close(self) -> None:
        """Let go of the model."""
        self._editor.close()
        self._runner.close()
