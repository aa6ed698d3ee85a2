"""Constants are read where they stand and computed where they do not, and a weight is not looked at before it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.constants import Constants, Source, matrix
from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.segments import Line


def test_constants_are_read_where_they_stand_and_computed_where_they_do_not():
    asked = []

    def compute(names):
        asked.append(tuple(names))
        return {"turned": np.ones((3, 2))}

    vertices = Vertex(0, "Transpose", "", ("w",), ("turned",)), Vertex(1, "MatMul", "", ("x", "turned"), ("y",))
    held = {"w": np.zeros((2, 3))}
    constants = Constants(Graph(vertices, ["w"], {}, ["x"]), held, compute)
    assert constants["w"] is held["w"]
    assert not asked
    assert constants["turned"].shape == (3, 2)
    assert asked == [("turned",)]
    assert set(constants) == {"w", "turned"}
    assert len(constants) == 2
    assert "x" not in constants
    with pytest.raises(KeyError):
        constants["y"]


def test_a_source_that_is_changed_leaves_the_first_as_it_was():
    source = Source("w", lambda: np.arange(4.0), "int4", "q8_0")
    halved = source.then(lambda array: array[:2])
    assert halved.read().tolist() == [0, 1]
    assert source.read().tolist() == [0, 1, 2, 3]
    assert (halved.constant, halved.packed, halved.operands) == ("w", "int4", "q8_0")


def test_no_weight_is_looked_at_before_it_is_asked_for():
    def broken(_names):
        raise AssertionError

    vertex = Vertex(0, "MatMulNBits", "", ("x", "b", "s"), ("y",), {"block_size": 32, "K": 32, "N": 1})
    constants = Constants(Graph([vertex], ["b", "s"], {}, ["x"]), {}, broken)
    assert matrix(Line(vertex, "x", "y"), constants).packed == "int4"
