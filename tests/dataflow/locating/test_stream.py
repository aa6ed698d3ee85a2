"""What comes to a branch past the stream, in graphs written by hand. Each row is `"op reads > makes"`; content follows from x."""

from __future__ import annotations

import pytest

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.locating.locate import locate
from llmtrace.dataflow.locating.stream import beside, several

VECTORS = ("w", "v", "matrix", "table")
PLAIN = (
    "RMSNormalization x w > n1", "MatMul n1 matrix > a", "Add x a > mid",
    "RMSNormalization mid w > n2", "MatMul n2 matrix > b", "Add mid b > post",
)  # fmt: skip
END = ("RMSNormalization post w > last", "MatMul last matrix > y")


def graph(*rows, sizes=None):
    vertices = []
    for index, row in enumerate(("Gather table ids > x", *rows)):
        left, _, right = row.partition(" > ")
        op, *reads = left.split()
        vertices.append(Vertex(index, op, "", tuple(reads), tuple(right.split())))
    return Graph(vertices, VECTORS, dict.fromkeys(VECTORS, 8) | (sizes or {}), ("ids",))


def past(*rows):
    """What comes past the stream, by what the vertex that reads it makes."""
    found = graph(*rows)
    return {found.vertices[index].makes[0]: set(names) for index, names in beside(found.flow("x"), "x", "y").items()}


def test_nothing_comes_past_a_plain_stream():
    assert past(*PLAIN, *END) == {}


@pytest.mark.parametrize(
    "rows",
    [
        ("RMSNormalization x w > n", "MatMul n matrix > a", "MatMul n v > b", "Add x a > inner", "Add inner b > post"),
        ("RMSNormalization x w > n", "MatMul n matrix > a", "MatMul n v > b", "Add a b > both", "Add both x > post"),
        ("RMSNormalization x w > n", "MatMul n matrix > a", "Mul x v > kept", "Add kept a > post"),
        ("RMSNormalization x w > n", "MatMul n matrix > a", "Add n a > sum", "RMSNormalization sum w > post"),
    ],
    ids=["one after the other", "added up before", "with a factor", "after norms"],
)
def test_nor_branches_beside_each_other_nor_factors_nor_norms_on_it(rows):
    assert past(*rows, *END) == {}


def test_embeddings_that_a_later_branch_reads_once_more_come_past_the_stream():
    rows = (*PLAIN[:-1], "Concat n2 x > c", "MatMul c matrix > d", "Add mid d > post")
    assert past(*rows, *END) == {"c": {"x"}}


def test_what_was_made_of_the_embeddings_comes_past_it_where_a_branch_reads_it():
    rows = ("MatMul x v > p", *PLAIN[:-1], "Mul b p > gated", "MatMul gated matrix > d", "Add mid d > post")
    assert past(*rows, *END) == {"gated": {"p"}}


def test_so_does_what_an_earlier_branch_made():
    rows = (*PLAIN[:4], "Add n2 a > both", "MatMul both matrix > b", "Add mid b > post")
    assert past(*rows, *END) == {"both": {"a"}}


def test_a_branch_of_an_earlier_point_is_added_late():
    rows = (
        *PLAIN,
        "RMSNormalization post w > n3",
        "MatMul n3 matrix > c",
        "Add post c > u",
        "MatMul n1 v > late",
        "Add u late > z",
    )
    assert past(*rows, "RMSNormalization z w > last", "MatMul last matrix > y") == {"z": {"late"}}


def test_embeddings_that_are_added_again_are_no_stream_of_their_own():
    rows = (*PLAIN, "Mul x v > again", "Add post again > z")
    assert past(*rows, "RMSNormalization z w > last", "MatMul last matrix > y") == {"z": {"again"}}


def test_what_comes_past_it_is_no_content_there_and_its_branch_opaque():
    rows = ("MatMul x v > p", *PLAIN[:-1], "Mul b p > gated", "MatMul gated matrix > d", "Add mid d > post", *END)
    found = locate(graph(*rows), "ids", "y", {"table": (8, 8)})
    assert [(cell.ends, getattr(cell, "why", "")) for block in found.blocks for cell in block.cells][-1] == (
        "d", "it reads, besides the stream, something else that was made of the tokens",
    )  # fmt: skip
    assert found.beside == {7: {"p"}}
    flow = graph(*rows).flow("x", found.beside)
    assert not flow.follows("d", "p")
    assert flow.follows("d", "mid")


def test_a_late_branch_is_one_of_the_block_that_it_is_added_in():
    rows = (
        *PLAIN,
        "RMSNormalization post w > n3",
        "MatMul n3 matrix > c",
        "Add post c > u",
        "MatMul n1 v > late",
        "Add u late > z",
    )
    found = locate(graph(*rows, "RMSNormalization z w > last", "MatMul last matrix > y"), "ids", "y", {"table": (8, 8)})
    last = found.blocks[-1]
    assert last.post == "z"
    assert [cell.ends for cell in last.cells][-1] == "late"
    assert found.ln_final.last == "last"


def test_what_only_a_branch_spreads_is_one_stream():
    rows = (
        *PLAIN[:-1],
        "Concat x x > c",
        "MatMul c matrix > d",
        "Add mid d > post",
        "Tanh post > p",
        "MatMul p matrix > y",
    )
    found = graph(*rows, sizes={"x": 4, "c": 8})
    assert several(found.flow("x"), "x", "y") == 0


def test_what_is_spread_and_goes_on_is_several():
    rows = ("Expand x v > s", "MatMul s matrix > a", "Mul s v > b", "Add b a > post", *END)
    assert several(graph(*rows, sizes={"x": 4, "s": 12}).flow("x"), "x", "y") == 3
