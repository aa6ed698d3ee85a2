"""Graphs that are written, changed, opened, and compared with what they were written from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import numpy as np
import onnx

import llmtrace
from llmtrace.model import Model
from llmtrace.schema.sites import Array
from llmtrace.spec import Mixer, ModelSpec
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.options import PRESETS, OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner
from llmtrace_onnxruntime.writing import write_onnx

TOKENS = [3, 1, 4, 1, 5]


def write(
    source,
    directory: Path,
    style: str = "plain",
    kind: str = "float32",
    change: Callable[[onnx.GraphProto], object] | None = None,
) -> Path:
    """`model.onnx`, and beside it a `config.json` with what no graph says: the family's name, and the longest prompt."""
    directory.mkdir(exist_ok=True)
    spec = source.spec
    said = {"model_type": spec.family, "max_position_embeddings": spec.context}
    (directory / "config.json").write_text(json.dumps(said), encoding="utf-8")
    path = write_onnx(source, directory / "model.onnx", kind, style)
    if change is not None:
        proto = onnx.load(path)
        change(proto.graph)
        onnx.save(proto, path)
    return path


def open_graph(path: Path, preset: str = "exact", **options: object) -> Model:
    """With this backend."""
    return llmtrace.open(str(path), backend="onnxruntime", preset=preset, options=options)


def logits_of(source: str | Path, options: OnnxRuntimeOptions | None = None) -> Array:
    """What a file's graph answers to a short prompt, [token vocab], without reading it as a decoder."""
    loaded = load(source, options)
    inputs = inputs_of(loaded)
    return Runner(loaded, PRESETS["exact"]).run(inputs.arrays(TOKENS), [inputs.logits])[inputs.logits][0]


def differences(found: object, wanted: object, at: str = "spec") -> Iterator[str]:
    """Where two trees of records differ, in words."""
    if isinstance(found, tuple) and isinstance(wanted, tuple) and len(found) == len(wanted):
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, f"{at}[{place}]")
    elif attrs.has(type(found)) and type(found) is type(wanted):
        for each in attrs.fields(type(found)):
            yield from differences(getattr(found, each.name), getattr(wanted, each.name), f"{at}.{each.name}")
    elif found != wanted:
        yield f"{at}: {found!r}, not {wanted!r}"


def unequal(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> list[str]:
    """The arrays of either that are not in the other to the last bit."""
    names = {**wanted, **found}
    return [name for name in names if name not in found or name not in wanted or not same(found[name], wanted[name])]


def same(found: Array, wanted: Array) -> bool:
    """To the last bit."""
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def signals(model: Model, tokens, **more) -> dict[str, Array]:
    """All that a trace holds by default."""
    trace = model.trace(list(tokens), **more)
    return {site: np.array(trace[site].array) for site in trace.signals}


def opaque(spec: ModelSpec) -> list[str]:
    """The branches that nothing is claimed of."""
    return [
        f"blocks.{layer}.{branch.name}"
        for layer, block in enumerate(spec.blocks)
        for branch in block.branches
        if isinstance(branch.module, Mixer)
    ]
