"""What chooses experts, and what chooses positions."""

from __future__ import annotations

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.locating.moe_parts import chooses


def flow(*vertices):
    """Of a graph; vertices are (operator, what it reads, what it makes)."""
    made = [
        Vertex(at, op, "", tuple(reads.split()), tuple(makes.split())) for at, (op, reads, makes) in enumerate(vertices)
    ]
    return Graph(made, ["table", "A", "B"], {}, ["ids"]).flow("x")


BEGIN = ("Gather", "table ids", "x")


def test_what_one_matrix_makes_of_tokens_ranks_experts():
    found = flow(BEGIN, ("MatMul", "x A", "logits"), ("Softmax", "logits", "scores"), ("TopK", "scores", "best index"))
    assert chooses(found, "x", found.graph.maker["index"])


def test_what_tokens_make_of_each_other_ranks_positions():
    found = flow(
        BEGIN, ("MatMul", "x A", "q"), ("MatMul", "x B", "k"), ("Transpose", "k", "turned"), ("MatMul", "q turned", "products"),
        ("Relu", "products", "scores"), ("TopK", "scores", "best index"),
    )  # fmt: skip
    assert not chooses(found, "x", found.graph.maker["index"])


def test_a_choice_of_what_is_no_content_is_none():
    found = flow(BEGIN, ("TopK", "A", "best index"))
    assert not chooses(found, "x", found.graph.maker["index"])


def test_so_is_what_chooses_nothing():
    found = flow(BEGIN, ("Softmax", "x", "scores"))
    assert not chooses(found, "x", found.graph.maker["scores"])
