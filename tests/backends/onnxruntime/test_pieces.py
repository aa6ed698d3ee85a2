"""A piece computes what it is asked for, and nothing that lies before it."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace_onnxruntime.graph import Graph, Vertex
from llmtrace_onnxruntime.pieces import Pieces

LAYER = re.compile(r"/(?:layers|h)\.(\d+)/")
"""How tracing names the nodes of a layer."""


class Asked:
    """What runs pieces, and notes what they are; every value is its own name's length."""

    def __init__(self):
        self.pieces = []

    def subgraph(self, inputs, outputs):
        self.pieces.append((set(inputs), list(outputs)))
        return lambda given: {name: np.array([len(name)]) for name in outputs}


def graph(*vertices, constants=("table", "w")):
    """Of (operator, what it reads, what it makes)."""
    return Graph(
        [Vertex(at, op, "", tuple(reads.split()), (makes,)) for at, (op, reads, makes) in enumerate(vertices)],
        constants, {}, ["ids"],
    )  # fmt: skip


def pieces(*vertices):
    asked = Asked()
    return asked, Pieces(graph(*vertices).flow("x"), asked, lambda ids: {"ids": np.array(ids)})


BEFORE = ("Gather", "table ids", "x"), ("Mul", "x w", "y"), ("Shape", "y", "before"), ("MatMul", "y w", "q")


def test_a_length_of_what_lies_before_is_computed_by_the_graph_once_for_each_number_of_tokens():
    asked, parts = pieces(*BEFORE, ("Reshape", "q before", "heads"), ("Shape", "heads", "after"))
    for tokens in (7, 7, 8):
        parts.run({"q": np.zeros(1)}, ["heads"], tokens)
    assert asked.pieces == [
        ({"ids"}, ["before"]), ({"q", "before"}, ["heads"]), ({"q", "before"}, ["heads"]), ({"ids"}, ["before"]), ({"q", "before"}, ["heads"]),
    ]  # fmt: skip


def test_where_a_second_part_rests_on_others_all_are_computed_at_once():
    later = (
        ("Shape", "heads", "after"),
        ("MatMul", "heads w", "out"),
        ("Reshape", "out after", "z"),
        ("Shape", "z", "end"),
    )
    asked, parts = pieces(*BEFORE, ("Reshape", "q before", "heads"), *later)
    parts.run({"q": np.zeros(1)}, ["heads"], 7)
    parts.run({"out": np.zeros(1)}, ["z"], 7)
    assert asked.pieces[2:] == [({"ids"}, ["before", "after", "end"]), ({"out", "after"}, ["z"])]
    parts.run({"out": np.zeros(1)}, ["z"], 8)
    assert asked.pieces[4:] == [({"ids"}, ["after"]), ({"out", "after"}, ["z"])]


def test_a_length_of_what_is_given_is_that_of_what_is_given():
    vertices = (*BEFORE, ("Reshape", "q before", "heads"), ("Shape", "heads", "after"), ("Expand", "heads after", "z"))
    asked, parts = pieces(*vertices)
    parts.run({"heads": np.zeros(1)}, ["z"], 7)
    assert asked.pieces == [({"heads"}, ["z"])]


def test_lengths_of_what_is_no_content_are_the_pieces_own():
    asked, parts = pieces(*BEFORE, ("Shape", "ids", "n"), ("Reshape", "q n", "heads"))
    parts.run({"q": np.zeros(1)}, ["heads"], 7)
    assert asked.pieces == [({"q", "ids"}, ["heads"])]


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
