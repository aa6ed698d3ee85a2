"""onnxruntime-genai's model builder: fused operators written by hand, no tracing; with `genai_config.json` and the tokenizer beside it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.backends.onnxruntime.exports import environment
from tests.backends.onnxruntime.exports.exporter import Exporter

MODULE = "onnxruntime_genai"
NEEDS = {MODULE: "onnxruntime-genai>=0.14"}


def make(checkpoint: Path, out: Path, precision: str = "fp32", options: tuple[str, ...] = ()) -> None:
    """For the CPU. `options` are the builder's `--extra_options`."""
    extra = ["--extra_options", *options] if options else []
    with tempfile.TemporaryDirectory() as cache:
        environment.run(
            MODULE, ["-m", f"{MODULE}.models.builder", "-m", str(checkpoint), "-i", str(checkpoint), "-o", str(out), "-p", precision,
                     "-e", "cpu", "-c", cache, *extra],
        )  # fmt: skip


EXPORTERS = (
    Exporter("genai-fp32", make, NEEDS),
    Exporter("genai-fp16", partial(make, precision="fp16"), NEEDS),
    Exporter("genai-int4", partial(make, precision="int4"), NEEDS),
    Exporter("genai-int4-qdq", partial(make, precision="int4", options=("use_qdq=true",)), NEEDS),
    Exporter("genai-last", partial(make, options=("prune_lm_head=true",)), NEEDS),
)
