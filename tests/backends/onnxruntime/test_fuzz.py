"""No damage to a file ends in anything but a typed error."""

from __future__ import annotations

import random

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from attrs import evolve

from llmtrace.errors import LLMTraceError
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.options import PRESETS
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner

FUZZED = 300


def mutated(seed: int, raw: bytes) -> bytes:
    """Bytes changed, a file cut off, or a graph that contradicts itself."""
    rng = random.Random(seed)  # noqa: S311  # chosen by a seed, so that it is the same again
    if rng.random() < 0.4:
        changed = bytearray(raw)
        for _ in range(rng.choice([1, 2, 20])):
            changed[rng.choice([rng.randrange(len(changed)), len(changed) - 1 - rng.randrange(3000)])] = rng.randrange(
                256
            )
        return bytes(changed[: rng.choice([len(raw), len(raw), rng.randrange(len(raw))])])
    proto = onnx.ModelProto.FromString(raw)
    graph = proto.graph
    for _ in range(rng.choice([1, 1, 3])):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        value = rng.choice([*graph.input, *graph.output])
        kind = rng.randrange(8)
        if kind == 0 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(["", "nothing", *rng.choice(graph.node).output])
        elif kind == 1:
            node.op_type = rng.choice(graph.node).op_type
        elif kind == 2 and tensor.dims:
            tensor.dims[0] = rng.choice([-1, 0, 1, 1 << 40])
        elif kind == 3:
            tensor.data_type = rng.choice([0, 1, 6, 7, 8, 10, 16, 22, 99])
        elif kind == 4:
            graph.node.remove(node)
        elif kind == 5 and node.attribute:
            node.attribute[0].i = rng.choice([-1, 7, 1 << 40])
        elif kind == 6 and len(tensor.raw_data) in {4, 8}:
            tensor.raw_data = rng.randbytes(len(tensor.raw_data))
        elif kind == 7 and value.type.tensor_type.shape.dim:
            rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice([-1, 0, 3])
    return proto.SerializeToString()


def test_no_damage_ends_in_anything_but_a_typed_error(single):
    raw, ends = single.read_bytes(), {"opened": 0, "refused": 0, "nameless": 0}
    options = evolve(PRESETS["exact"], threads=1)
    for seed in range(FUZZED):
        single.write_bytes(mutated(seed, raw))
        try:
            loaded = load(single)
            inputs = inputs_of(loaded)
            Runner(loaded, options).run(inputs.arrays([3, 1, 4]), [inputs.logits])
            ends["opened"] += 1
        except LLMTraceError as error:
            ends["refused" if "model.onnx" in str(error) else "nameless"] += 1
    assert not ends["nameless"]
    assert ends["refused"] > FUZZED // 4 and ends["opened"] > FUZZED // 20
