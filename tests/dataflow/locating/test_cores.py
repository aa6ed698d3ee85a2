"""Where heads look at each other, and where something else is a softmax."""

from __future__ import annotations

import time

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.locating.cores import cores


def flow(*vertices):
    """Of a graph; vertices are (operator, what it reads, what it makes)."""
    made = [
        Vertex(at, op, "", tuple(reads.split()), tuple(makes.split())) for at, (op, reads, makes) in enumerate(vertices)
    ]
    return Graph(made, ["table", "A", "B", "C", "R"], {}, ["ids"]).flow("x0")


BEGIN = ("Gather", "table ids", "x0")


def attention(at):
    """A block of attention alone."""
    x, q, k, v, z, out = (f"{name}{at}" for name in "xqkvzo")
    return (
        ("LayerNormalization", f"{x} w", f"n{at}"), ("MatMul", f"n{at} A", q), ("MatMul", f"n{at} B", k), ("MatMul", f"n{at} C", v),
        ("MatMul", f"{q} {k}", f"s{at}"), ("Softmax", f"s{at}", f"p{at}"), ("MatMul", f"p{at} {v}", z), ("MatMul", f"{z} A", out),
        ("Add", f"{x} {out}", f"x{at + 1}"),
    )  # fmt: skip


def test_heads_meet_between_the_product_of_two_values_and_the_mixture():
    (found,) = cores(flow(BEGIN, *attention(0)), "x0", "o0")
    assert found.operands == ("q0", "k0", "v0")
    assert (found.core.scores, found.core.pattern, found.core.z) == ("s0", "p0", "z0")


def mlp(at):
    """A block of an MLP alone."""
    x, inner, out = f"x{at}", f"i{at}", f"o{at}"
    return (
        ("LayerNormalization", f"{x} w", f"n{at}"), ("MatMul", f"n{at} A", inner), ("MatMul", f"{inner} B", out),
        ("Add", f"{x} {out}", f"x{at + 1}"),
    )  # fmt: skip


def test_a_router_far_down_the_stream_is_no_attention_and_does_not_look_for_one_before_its_branch():
    """Two ways lead back from each sum, and all of them are many."""
    blocks = [vertex for at in range(22) for vertex in mlp(at)]
    router = (
        ("LayerNormalization", "x22 w", "n"), ("MatMul", "n R", "logits"), ("Softmax", "logits", "weights"),
        ("MatMul", "n A", "inner"), ("MatMul", "weights inner", "out"),
    )  # fmt: skip
    began = time.process_time()
    assert not cores(flow(BEGIN, *blocks, *router), "x22", "out")
    assert time.process_time() - began < 5
