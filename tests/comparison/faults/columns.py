"""Runtimes and precisions that a faulty model is opened in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from attrs import evolve, frozen

import llmtrace
from llmtrace.comparison.specs import differences
from llmtrace.errors import LLMTraceError, OptionError
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.model import Model
from llmtrace.protocol import Preset
from llmtrace.spec import ModelSpec
from llmtrace_torch import open as torch_open
from tests.comparison.faults.fault import Fault


@frozen
class Column:
    """One way to open a model."""

    name: str
    """As the table calls it."""
    backend: str
    """Its backend."""
    kind: str
    """How the weights are stored, or what PyTorch computes in."""
    attention: str = "eager"
    """PyTorch's kernel."""
    preset: Preset = "exact"
    """Of the other runtimes: what they ship with, or what the equations hold tightest on."""
    style: str = "plain"
    """Of an ONNX graph: whose operators it is made of."""


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("float32", "torch", "float32"),
        Column("bfloat16", "torch", "bfloat16"),
        Column("float16", "torch", "float16"),
        Column("GGUF F16", "llamacpp", "F16"),
        Column("GGUF Q8_0", "llamacpp", "Q8_0"),
        Column("GGUF Q4_0", "llamacpp", "Q4_0"),
        Column("ONNX", "onnxruntime", "float32"),
    )
}
"""Those of the table."""
OTHERS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("float32, sdpa", "torch", "float32", attention="sdpa"),
        Column("bfloat16, sdpa", "torch", "bfloat16", attention="sdpa"),
        Column("GGUF F32 as shipped", "llamacpp", "F32", preset="shipped"),
        Column("GGUF F16 as shipped", "llamacpp", "F16", preset="shipped"),
        Column("GGUF Q4_0 as shipped", "llamacpp", "Q4_0", preset="shipped"),
        Column("GGUF BF16", "llamacpp", "BF16"),
        Column("GGUF Q4_1", "llamacpp", "Q4_1"),
        Column("GGUF Q5_0", "llamacpp", "Q5_0"),
        Column("GGUF Q5_1", "llamacpp", "Q5_1"),
        Column("ONNX float16", "onnxruntime", "float16"),
        Column("ONNX int4", "onnxruntime", "int4"),
        Column("ONNX as shipped", "onnxruntime", "float32", preset="shipped"),
        Column("ONNX as shipped, fused", "onnxruntime", "float32", preset="shipped", style="fused"),
    )
}
"""More, in which right conversions alone are opened."""


class NotPlantedError(Exception):
    """The fault cannot be made in this column."""


@frozen
class Written:
    """What a converter writes."""

    spec: ModelSpec
    weights: Any


@contextmanager
def planted(code: Callable[[Any], None] | None) -> Iterator[None]:
    """While this is entered, PyTorch's models are other code as soon as they are loaded."""
    real = torch_open.load

    def load(*args: Any, **named: Any) -> Any:
        model, said = real(*args, **named)
        if code is not None:
            with torch.no_grad():
                code(model)
        return model, said

    with patch.object(torch_open, "load", load):
        yield


@contextmanager
def opened(checkpoint: Path, column: Column, fault: Fault | None = None) -> Iterator[Model]:
    """The model of a checkpoint, with the fault in it. Raises `NotPlantedError` where the column has no room for it."""
    if column.backend == "torch":
        if fault is not None and fault.how == "converter":
            raise NotPlantedError("PyTorch reads the checkpoint itself")
        options = {"dtype": column.kind, "attention": column.attention}
        try:
            with planted(fault.code if fault is not None and fault.early else None):
                model = llmtrace.open(checkpoint, backend="torch", options=options)
        except OptionError as error:  # transformers has no such kernel for it
            raise NotPlantedError(str(error)) from error
        with model:
            if fault is not None and fault.code is not None and not fault.early:
                session: Any = model.session
                with torch.no_grad():
                    fault.code(session.model)
            yield model
        return
    if fault is not None and fault.how == "code":
        raise NotPlantedError("the code is the runtime's own")
    if fault is not None and fault.how == "tokenizer" and column.backend == "llamacpp":
        raise NotPlantedError("the file is written with a vocabulary of bytes")
    settings: dict[str, Any] = {"threads": 1}
    if column.backend == "llamacpp":  # what a converter made of it may end the process
        settings["guard"] = fault is not None and fault.how == "converter"
    path = _converted(checkpoint, column, fault)
    try:
        model = llmtrace.open(path, backend=column.backend, preset=column.preset, options=settings)
    except LLMTraceError as error:
        if fault is not None and fault.how != "converter":  # what is right, and not opened, is no conversion
            raise
        raise NotPlantedError(str(error)) from error
    with model:
        yield model


def _converted(checkpoint: Path, column: Column, fault: Fault | None) -> Path:
    found = open_checkpoint(checkpoint)
    written = Written(found.spec if fault is None or fault.spec is None else fault.spec(found.spec), found.weights)
    if column.backend == "onnxruntime":
        from llmtrace_onnxruntime.writing import write_onnx

        return write_onnx(written, checkpoint / "model.onnx", column.kind, column.style)
    from llmtrace_llamacpp.weights import open_gguf
    from llmtrace_llamacpp.writing import write_gguf

    try:
        path = write_gguf(written, checkpoint / f"{column.kind}.gguf", column.kind)
        found_spec = open_gguf(path).spec
    except LLMTraceError as error:
        raise NotPlantedError(str(error)) from error
    if lost := differences(written.spec, evolve(found_spec, family=written.spec.family)):
        raise NotPlantedError(f"llama.cpp computes {lost[0].field} {lost[0].candidate}, whatever a file says")
    return path
