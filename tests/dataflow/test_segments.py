"""Ways through a graph, cut where everything passes, and what each part is."""

from __future__ import annotations

import pytest

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.segments import line_of, lines_between, moved_from, segments, with_bias

NUMBERS, VECTORS = ("one", "two"), ("w", "v", "matrix")
"""Constants of one number, and of many."""


def flow(*rows, inputs=("x", "mask")):
    """Of `"op reads > makes"`, values apart by spaces; content follows from x."""
    vertices = []
    for index, row in enumerate(rows):
        left, _, right = row.partition(" > ")
        op, *reads = left.split()
        vertices.append(Vertex(index, op, "", tuple(reads), tuple(right.split())))
    sizes = {**dict.fromkeys(NUMBERS, 1), **dict.fromkeys(VECTORS, 8)}
    return Graph(vertices, [*NUMBERS, *VECTORS], sizes, inputs).flow("x")


def kinds(*rows, last="y"):
    return [one.kind for one in segments(flow(*rows), "x", last)]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("Reshape x v > y", "move"),
        ("Cast x > y", "move"),
        ("Slice x v > y", "move"),
        ("MatMul x matrix > y", "line"),
        ("Gemm x matrix w > y", "line"),
        ("MatMulNBits x matrix v > y", "line"),
        ("MatMul matrix x > y", "other"),
        ("MatMul x mask > y", "other"),
        ("MatMul x x > y", "other"),
        ("LayerNormalization x w v > y", "norm"),
        ("SimplifiedLayerNormalization x w > y", "norm"),
        ("Mul x one > y", "scale"),
        ("Mul one x > y", "scale"),
        ("Div x one > y", "scale"),
        ("Div one x > y", "point"),
        ("Mul x w > y", "scale"),
        ("Add x w > y", "add"),
        ("Add mask x > y", "add"),
        ("Sub x one > y", "add"),
        ("Add x x > y", "join"),
        ("Sigmoid x > y", "point"),
        ("Clip x one two > y", "point"),
        ("RotaryEmbedding x mask w v > y", "rotary"),
    ],
)
def test_a_vertex_alone_is_of_a_kind(row, kind):
    assert kinds(row) == [kind]


def test_a_norm_in_parts_is_one_segment_with_its_weight_and_bias():
    rows = (
        "Pow x two > square", "ReduceMean square > mean", "Add mean one > above", "Sqrt above > root", "Div x root > normed",
        "Mul w normed > weighted", "Add weighted v > y",
    )  # fmt: skip
    assert kinds(*rows) == ["norm"]
    assert kinds(*rows[:-2], "Mul normed one > y") == ["norm", "scale"], "one number is no weight"


def test_a_centred_norm_goes_on_with_its_second_mean():
    rows = (
        "ReduceMean x > m", "Sub x m > c", "Pow c two > s", "ReduceMean s > v2", "Add v2 one > a", "Sqrt a > r", "Div c r > n",
        "Cast n > h", "Mul h w > y",
    )  # fmt: skip
    assert kinds(*rows) == ["norm"]


def test_a_line_goes_on_with_one_bias_and_no_second():
    way = segments(flow("MatMul x matrix > p", "Add p w > q", "Add q v > y"), "x", "y")
    assert [one.kind for one in way] == ["line", "add"]
    found = line_of(flow("MatMul x matrix > p", "Add p w > q", "Add q v > y"), way[0])
    assert (found.reads, found.makes, found.bias) == ("x", "q", "w")


@pytest.mark.parametrize(
    ("row", "bias"), [("Gemm x matrix w > y", "w"), ("Gemm x matrix > y", ""), ("MatMulNBits x matrix v   > y", "")]
)
def test_a_product_may_have_its_bias_inside(row, bias):
    one = flow(row)
    (way,) = segments(one, "x", "y")
    assert line_of(one, way).bias == bias


def test_a_number_or_a_mask_that_is_added_is_no_bias():
    for added in ("one", "mask"):
        one = flow("MatMul x matrix > p", f"Add p {added} > y")
        assert [each.kind for each in segments(one, "x", "y")] == ["line", "add"]
        assert next(iter(lines_between(one, "x", "y"))).bias == ""


def test_a_bias_belongs_to_a_line_only_where_nothing_else_reads_the_product():
    rows = ("MatMul x matrix > p", "Add p w > q", "Mul p q > y")
    (one,) = lines_between(flow(*rows), "x", "y")
    assert (one.makes, one.bias) == ("p", "")
    (one,) = lines_between(flow(*rows[:2], "Mul q q > y"), "x", "y")
    assert (one.makes, one.bias) == ("q", "w")
    assert with_bias(flow(*rows[:2]), one) == one


def test_rotary_is_told_by_tables_of_positions_and_an_activation_by_having_none():
    turning = ("Neg x > n", "Concat n x > r", "Mul x mask > a", "Mul r mask > b", "Add a b > y")
    assert kinds(*turning) == ["rotary"]
    swish = ("Sigmoid x > s", "Mul x s > y")
    assert kinds(*swish) == ["point"]
    numbers = ("Mul x one > a", "Erf a > e", "Add e one > f", "Mul x f > y")
    assert kinds(*numbers) == ["point"]


def test_a_sum_with_branches_is_neither():
    assert kinds("MatMul x matrix > b", "Add x b > y") == ["other"]
    assert kinds("MatMul x matrix > a", "Mul x a > y") == ["other"]


def test_segments_follow_each_other_and_hold_every_vertex():
    rows = (
        "MatMul x matrix > a",
        "Sigmoid a > s",
        "Mul a s > b",
        "Reshape b v > c",
        "LayerNormalization c w > d",
        "Mul d one > y",
    )
    way = segments(flow(*rows), "x", "y")
    assert [one.kind for one in way] == ["line", "point", "move", "norm", "scale"]
    assert [one.first for one in way] == ["x", *(one.last for one in way[:-1])]
    assert way[-1].last == "y"
    assert [vertex.index for one in way for vertex in one.vertices] == list(range(len(rows)))
    assert way[1].ops == {"Sigmoid", "Mul"}
    assert segments(flow(*rows), "y", "x") == ()


def test_one_goes_back_through_what_only_moves():
    one = flow("Sigmoid x > s", "Cast s > a", "Reshape a v > b", "Concat b x > y")
    assert moved_from(one, "b") == "s"
    assert moved_from(one, "y") == "y", "two values come together"
    assert moved_from(one, "s") == "s"
