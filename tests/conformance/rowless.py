"""The PyTorch backend as it is where no row describes a model."""

from __future__ import annotations

from llmtrace.protocol import TraceSession
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.plugin import TorchBackend


class Rowless(TorchBackend):
    """Knows no family: every checkpoint is read off the model as it runs."""

    @staticmethod
    def open(source: str, options: TorchOptions) -> TraceSession:
        """Open a checkpoint by what it computes; anything else as ever."""
        import pytest

        from llmtrace_torch import by_running

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(by_running, "FAMILIES", {})
            return TorchBackend.open(source, options)
