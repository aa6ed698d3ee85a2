"""One open model. MLX is lazy: a forward pass only writes down what is to be computed, and a signal is computed when it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mlx.core as mx
from mlx import nn

from llmtrace.errors import ModelOpenError
from llmtrace.families.checkpoint import Checkpoint
from llmtrace.families.native import arrange
from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.precision import Precision
from llmtrace.schema.steps import stage_of, steps
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo
from llmtrace_mlx.sites import taps
from llmtrace_mlx.watching import as_numpy, watched

FUSED = Gap("upstream", "mlx-lm computes attention in one call and hands out neither scores nor pattern")


class MlxSession:
    """An open model of mlx-lm; it also has `weights` and `stored`."""

    def __init__(
        self, model: nn.Module, device: mx.Device, checkpoint: Checkpoint, info: ModelInfo, tokenizer: Tokenizer | None
    ) -> None:
        self.info, self.spec, self.tokenizer = info, checkpoint.spec, tokenizer
        self.weights, self.stored = checkpoint.weights, checkpoint.stored
        self._device, self._steps = device, steps(self.spec)
        self._modules = dict(model.named_modules()) | {f"blocks.{n}": block for n, block in enumerate(model.layers)}
        self._taps = taps(checkpoint, self._modules)
        found = self._pass((0,), self._taps)
        mx.eval(found["logits"])  # what only this thread can compute, once; what MLX has no kernel for says so
        sums = "float32" if info.device == "cpu" else "tf32"  # which MLX allows itself on a GPU
        self.offers = {
            site: Offer(self._taps[site].provenance, Precision(str(x.dtype).removeprefix("mlx.core."), sums))
            for site, x in found.items()
        }
        self.gaps = {site: FUSED for site in self._steps if site.endswith((".attn.scores", ".attn.pattern"))}

    def run(self, request: Request, observer: Observer) -> None:
        """One forward pass, then what was asked for of it, block by block."""
        if not self._modules:
            raise ModelOpenError(f"{self.info.source} is closed: open it again.")
        blocks = len(self.spec.blocks)
        with mx.stream(self._device):
            found = self._pass(request.tokens, request.cuts)
            for stage in range(-1, blocks + 1):
                for site in [site for site in found if stage_of(site, blocks) == stage]:
                    tap, step = self._taps[site], self._steps[site]
                    array = arrange(as_numpy(found.pop(site)), tap.axes, step.axes, step.sizes, tap.piece)
                    observer.signal(site, request.cuts[site].apply(array))
                if 0 <= stage < blocks:
                    observer.layer_done(stage)

    def _pass(self, tokens: Sequence[int], sites: Iterable[str]) -> dict[str, mx.array]:
        """A forward pass of which nothing is computed yet; the sites as they pass, without the batch."""
        wanted = {site: self._taps[site] for site in sites}
        with watched({tap.module: self._modules[tap.module] for tap in wanted.values()}) as seen:
            self._modules[""](mx.array([tokens]))
        return {site: seen[tap.module, tap.side][0] for site, tap in wanted.items()}

    def close(self) -> None:
        """Let go of the model."""
        self._modules = {}
