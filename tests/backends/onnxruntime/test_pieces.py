"""A piece of a traced graph, as it is cut out of the file, holds nothing of the layers before its own."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

LAYER = re.compile(r"/(?:layers|h)\.(\d+)/")
"""How tracing names the nodes of a layer."""


@pytest.fixture(scope="module")
def cut_out(cell):
    """For an architecture: the names of the nodes of the graph by what they make, and every piece that was made when it was opened."""
    pytest.importorskip("onnxruntime")
    import onnx

    from llmtrace_onnxruntime.piece import Cutter
    from tests.backends.onnxruntime.opening import open_graph

    def opened(architecture):
        path, made = cell("torchscript", architecture), []
        with pytest.MonkeyPatch.context() as patch:
            piece = Cutter.piece
            patch.setattr(Cutter, "piece", lambda self, *of: made.append(piece(self, *of)) or made[-1])
            open_graph(path).close()
        return {name: node for node in onnx.load(path).graph.node for name in node.output}, made

    return opened


def layers_of(nodes):
    return {int(found[1]) for node in nodes if (found := LAYER.search(node.name))}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_piece_of_a_traced_graph_holds_nothing_of_the_layers_before_its_own(architecture, cut_out):
    makers, made = cut_out(architecture)
    own, everywhere = set(), 0
    for one in made:
        wanted = [makers[value.name] for value in one.graph.output if value.name in makers]
        if all(node.op_type == "Shape" for node in wanted):  # lengths, of all layers at once
            everywhere += len(layers_of(one.graph.node)) > 1
        elif layers_of(wanted):
            own |= layers_of(wanted)
            assert layers_of(one.graph.node) == layers_of(wanted), one.graph.output[0].name
    assert own == {0, 1, 2}
    assert everywhere == 1  # one session, for whatever number of tokens
