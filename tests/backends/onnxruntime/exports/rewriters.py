"""What makes another graph of an exported one: ONNX Runtime's optimiser and quantisers, as people run them before they publish."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tests.backends.onnxruntime.exports.exporter import Exporter

NEEDS = {"onnx": "onnx", "onnxruntime": "onnxruntime"}


def optimised(source: Path, out: Path, level: str) -> None:
    """As ONNX Runtime would run it at a level of optimisation, saved. What is nearer to the machine than `extended` is this machine's."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = str(out / "model.onnx")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    _beside(source, out)  # what it does not change stays in the files beside the graph
    onnxruntime.InferenceSession(str(source / "model.onnx"), options, providers=["CPUExecutionProvider"])


def fused(source: Path, out: Path) -> None:
    """By `onnxruntime.transformers.optimizer`, whose patterns are of the transformer kind; GPT-2's are the ones for decoders."""
    from onnxruntime.transformers import optimizer

    config = json.loads(
        (source.parent.parent / "checkpoints" / source.name / "config.json").read_text(encoding="utf-8")
    )
    heads = next(config[key] for key in ("num_attention_heads", "n_head", "n_heads", "num_heads") if key in config)
    width = next(config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config)
    model: Any = optimizer.optimize_model(
        str(source / "model.onnx"), model_type="gpt2", num_heads=heads, hidden_size=width, opt_level=0
    )
    model.save_model_to_file(str(out / "model.onnx"))


def half(source: Path, out: Path) -> None:
    """In float16, with inputs and outputs as they were."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source / "model.onnx"), keep_io_types=True), out / "model.onnx")


def int8(source: Path, out: Path) -> None:
    """Weights in eight bits, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source / "model.onnx", out / "model.onnx", weight_type=QuantType.QInt8)


def int4(source: Path, out: Path) -> None:
    """Matrices in four bits, in blocks of 32."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer: Any = MatMulNBitsQuantizer(onnx.load(source / "model.onnx"), block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out / "model.onnx"), use_external_data_format=False)


def _beside(source: Path, out: Path) -> None:
    for file in source.iterdir():
        if file.name != "model.onnx" and file.is_file():
            shutil.copyfile(file, out / file.name)


REWRITERS = (
    Exporter("extended", partial(optimised, level="extended"), NEEDS),
    Exporter("all", partial(optimised, level="all"), NEEDS),
    Exporter("fused", fused, NEEDS),
    Exporter("fp16", half, NEEDS),
    Exporter("int8", int8, NEEDS),
    Exporter("int4", int4, NEEDS),
)
