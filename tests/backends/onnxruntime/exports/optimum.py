"""Optimum's exporter: torch's older one, with patches an architecture; what many models on hubs were made with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.backends.onnxruntime.exports import environment
from tests.backends.onnxruntime.exports.exporter import Exporter

MODULE = "optimum"
NEEDS = {MODULE: "optimum-onnx>=0.1"}


def make(checkpoint: Path, out: Path, task: str = "text-generation") -> None:
    """`task` is Optimum's: `-with-past` or not."""
    environment.run(
        MODULE, ["-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", str(checkpoint), "--task", task,
                 "--no-post-process", str(out)],
    )  # fmt: skip


EXPORTERS = (
    Exporter("optimum", make, NEEDS),
    Exporter("optimum-past", partial(make, task="text-generation-with-past"), NEEDS),
)
