"""A piece computes what it is asked for, and nothing that lies before it."""

from __future__ import annotations

import numpy as np

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.pieces import Pieces


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
