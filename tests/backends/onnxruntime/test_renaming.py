"""What a graph is does not depend on what its values, nodes and inputs are called, nor on the order of nodes that do not read each other."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.dataflow.forms import Biased
from llmtrace.families import spec_of
from llmtrace.testing.tiny import TINY
from tests.backends.onnxruntime.opening import open_graph, same, signals, unequal, write
from tests.backends.onnxruntime.written import TOKENS, drawn

WRITTEN = [("plain", "gemma2"), ("fused", "llama"), ("multihead", "gpt_neox"), ("onnx23", "qwen3")]
"""Style and family."""
EXPORTED = [("torchscript", "llama"), ("torchscript", "gpt2"), ("torchscript", "gemma2"), ("torchscript", "falcon")]
SLOW = [("dynamo-18", "llama"), ("dynamo-18", "gpt2"), ("dynamo-18", "gemma2"), ("dynamo-18", "falcon")]
"""Exporter and architecture."""


def renamed(path, out, seed):
    """Another file of the same graph, and the new name of each value."""
    draw, proto = random.Random(seed), onnx.load(path)  # noqa: S311  (nothing secret)
    graph, names = proto.graph, {"": ""}

    def new(name):
        if name not in names:
            names[name] = f"x{draw.getrandbits(64):x}"
        return names[name]

    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new(value.name)
    for place, node in enumerate(graph.node):
        assert not any(each.HasField("g") or each.graphs for each in node.attribute)
        node.name = f"n{draw.getrandbits(64):x}" if place % 2 else ""
        for side in (node.input, node.output):
            for at, name in enumerate(side):
                side[at] = new(name)
    nodes = shuffled(list(graph.node), draw)
    del graph.node[:]
    graph.node.extend(nodes)
    constants = sorted(graph.initializer, key=lambda _: draw.random())
    del graph.initializer[:]
    graph.initializer.extend(constants)
    inputs = list(graph.input)[::-1]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    out.mkdir()
    for beside in path.parent.iterdir():
        if beside != path and beside.is_file():
            shutil.copy(beside, out / beside.name)
    onnx.save(proto, out / "model.onnx")
    return out / "model.onnx", names


def shuffled(nodes, draw):
    """In another order in which every node still comes after those that it reads."""
    waiting, done, makes = list(nodes), [], {name for node in nodes for name in node.output if name}
    there = set()
    while waiting:
        ready = [node for node in waiting if all(name in there or name not in makes for name in node.input)]
        one = draw.choice(ready)
        waiting = [node for node in waiting if node is not one]
        there.update(one.output)
        done.append(onnx.NodeProto.FromString(one.SerializeToString()))
    return done


def hold_the_same(model, path, out, seed=0):
    """The graph under other names is the same model: spec, places, weights, signals."""
    changed, names = renamed(path, out, seed)
    before, after = onnx.load(path).graph.node, onnx.load(changed).graph.node
    assert [node.op_type for node in before] != [node.op_type for node in after]
    with open_graph(changed) as other:
        assert other.spec == model.spec
        assert other.info.notes == model.info.notes
        for site, (value, form) in model.session._places.items():
            found, its = other.session._places[site]
            assert found == names.get(value, f"{names.get(value.removesuffix('/sum'))}/sum"), site
            assert _alike(its, form), site
        assert other.session.offers == model.session.offers
        assert not unequal(dict(other.weights), dict(model.weights))
        assert other.session.stored == model.session.stored
        assert not unequal(signals(other, TOKENS), signals(model, TOKENS))


def _alike(one, other):
    """Forms, of which some hold arrays."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Biased):
        return _alike(one.form, other.form) and np.array_equal(one.bias, other.bias)
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) if name == "columns" else name == "beside" or getattr(one, name) == getattr(other, name)
        for name in type(one).__annotations__
    )  # fmt: skip


@pytest.mark.parametrize(("style", "family"), WRITTEN)
def test_a_written_graph_is_read_the_same_under_other_names(style, family, tmp_path):
    path = write(drawn(spec_of({"model_type": family, **TINY[family]})), tmp_path / "given", style)
    with open_graph(path) as model:
        hold_the_same(model, path, tmp_path / "renamed")


@pytest.mark.parametrize(
    ("exporter", "architecture"), [*EXPORTED, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_an_exported_graph_is_read_the_same_under_other_names(exporter, architecture, cell, open_cell, tmp_path):
    if exporter.startswith("dynamo"):
        pytest.importorskip("onnxscript")
    hold_the_same(open_cell(exporter, architecture), cell(exporter, architecture), tmp_path / "renamed")


def test_signals_would_tell_another_graph(tmp_path):
    """The comparison is one that can fail."""
    array = np.ones(3, np.float32)
    assert unequal({"a": array}, {"a": np.nextafter(array, np.float32(2))}) == ["a"]
    assert unequal({"a": array}, {}) == unequal({}, {"a": array}) == ["a"]
    assert not same(array, array.astype(np.float64))
