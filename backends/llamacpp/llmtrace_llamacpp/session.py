"""One open GGUF file. A run is one decode from an empty cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping

from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.spec import ModelSpec
from llmtrace.threads import runtime_has_processors
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_llamacpp.architectures import ARCHITECTURES
from llmtrace_llamacpp.capture import Capture, Looker
from llmtrace_llamacpp.context import Context
from llmtrace_llamacpp.native import NativeModel
from llmtrace_llamacpp.offers import gaps, offers
from llmtrace_llamacpp.options import LlamaCppOptions
from llmtrace_llamacpp.settings import ContextSettings
from llmtrace_llamacpp.sites import places
from llmtrace_llamacpp.stretch import edges, roomy
from llmtrace_llamacpp.weights import GgufFile


class LlamaCppSession:
    """An open model of llama.cpp; it also has `weights` and `stored`, and edits."""

    def __init__(
        self, model: NativeModel, file: GgufFile, info: ModelInfo, tokenizer: Tokenizer | None, options: LlamaCppOptions
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.spec: ModelSpec = file.spec
        self.weights: Mapping[str, Array] = file.weights
        self.stored: Mapping[str, str] = file.stored
        self._model = model
        self._options = options
        self._steps = steps(file.spec)
        self._blocks = len(file.spec.blocks)
        self._edges = edges(file.spec)
        self._context: Context | None = None
        self._lock = threading.Lock()
        looker = Looker()
        self._context_for(2).decode([0, min(1, model.n_vocab - 1)][: file.spec.context], looker)
        self._graph = looker.graph
        fused = any(vertex.op == "FLASH_ATTN_EXT" for vertex in self._graph.vertices)
        permuted = ARCHITECTURES[file.header.architecture].permuted
        self._places = places(self._graph, file.spec, file.family, permuted)
        self.offers: Mapping[str, Offer] = offers(file.spec, self._places, file.stored, fused, options.cache)
        self.gaps: Mapping[str, Gap] = gaps(file.spec, self._places, fused)
        self.editable: Collection[str] = tuple(site for site in self._places if not self._steps[site].equation.integer)

    def run(self, request: Request, observer: Observer) -> None:
        """One forward pass. An exception of the observer stops it and is passed on."""
        with self._lock:
            context = self._context_for(len(request.tokens))
            runs = context.runs(len(request.tokens))
            capture = Capture(self._graph, self._places, self._steps, request, observer, self._blocks, runs)
            asked = request.edits or any(site != "logits" for site in request.cuts)
            with runtime_has_processors():
                logits = context.decode(request.tokens, capture if asked else None)
            capture.finish(lambda: logits)

    def close(self) -> None:
        """Let go of the model."""
        self._model.close()

    def _context_for(self, tokens: int) -> Context:
        """A context that has room, and computes as one of just that size would; the last one is kept."""
        length = self._options.context or min(roomy(tokens), self.spec.context or roomy(tokens))
        if self._context is None or not self._serves(self._context.settings.n_ctx, length):
            if self._context is not None:
                self._context.close()
            self._context = self._model.context(
                ContextSettings(
                    n_ctx=length,
                    n_batch=self._options.batch,
                    n_ubatch=self._options.micro_batch,
                    threads=self._options.threads or os.cpu_count() or 1,
                    flash_attn=self._options.flash_attn,
                    type_k=self._options.cache,
                    type_v=self._options.cache,
                    offload=self._options.gpu_layers != 0,
                )
            )
        return self._context

    def _serves(self, there: int, length: int) -> bool:
        """Whether a context of one size computes what one of another would, and has the room."""
        return there >= length and not any(roomy(length) <= edge < roomy(there) for edge in self._edges)
