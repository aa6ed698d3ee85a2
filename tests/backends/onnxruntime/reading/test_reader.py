"""Layers of a traced graph that do the same are asked once."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")


@pytest.mark.parametrize(("architecture", "kinds"), [("llama", 1), ("gemma2", 2)])
def test_layers_of_a_traced_graph_that_score_alike_are_asked_once(architecture, kinds, cell, monkeypatch):
    pytest.importorskip("onnxruntime")
    from llmtrace.dataflow.reading import attention
    from tests.backends.onnxruntime.opening import open_graph

    found, find = [], attention.find_kernel
    monkeypatch.setattr(attention, "find_kernel", lambda *a, **k: found.append(find(*a, **k)) or found[-1])
    with open_graph(cell("torchscript", architecture)) as model:
        assert len({block.attention.window for block in model.spec.blocks}) == kinds
    assert len([each for each in found if each is not None]) == kinds
