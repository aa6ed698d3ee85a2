"""Optimum's exporter: torch's older one, with patches an architecture; what many models on hubs were made with."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.backends.onnxruntime.exports import environment
from tests.backends.onnxruntime.exports.exporter import Exporter

MODULE = "optimum"
NEEDS = {MODULE: "optimum-onnx>=0.1"}


def make(checkpoint: Path, out: Path, task: str = "text-generation") -> None:
    """`task` is Optimum's: `-with-past` or not."""
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / checkpoint.name
        shutil.copytree(checkpoint, old)
        config = json.loads((old / "config.json").read_text(encoding="utf-8"))
        (old / "config.json").write_text(json.dumps(config | _as_before(config)), encoding="utf-8")
        environment.run(
            MODULE, ["-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", str(old), "--task", task,
                     "--no-post-process", str(out)],
        )  # fmt: skip


def _as_before(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of rotary as transformers 4, which Optimum needs, reads them: it does not know `rope_parameters`, and takes defaults."""
    found = config.get("rope_parameters") or {}
    if "rope_type" not in found:
        return {}
    factors = {key: value for key, value in found.items() if key not in ("rope_theta", "partial_rotary_factor")}
    flat = {key: value for key, value in found.items() if key in ("rope_theta", "partial_rotary_factor")}
    return flat if found["rope_type"] == "default" else {**flat, "rope_scaling": factors}


EXPORTERS = (
    Exporter("optimum", make, NEEDS),
    Exporter("optimum-past", partial(make, task="text-generation-with-past"), NEEDS),
)
