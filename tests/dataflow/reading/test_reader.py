"""What layers share: those that do the same are asked once, and a part is run on the longest prompt that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.reading.reader import Reader, Unreadable
from llmtrace.errors import BackendError

TOKENS = 5


def reader(*vertices, constants, context=TOKENS):
    """Of a graph whose content has one shape all over; vertices are (operator, what it reads, what it makes)."""
    made = [
        Vertex(at, op, "", tuple(reads.split()), tuple(makes.split())) for at, (op, reads, makes) in enumerate(vertices)
    ]
    flow = Graph(made, ["table", *constants], {}, ["ids"]).flow("x")
    probe = {name: np.zeros((1, TOKENS, 4), np.float32) for name in ("x", "a", "b")}
    numbers = {name: np.asarray(value) for name, value in constants.items()}
    return Reader(flow, None, numbers, probe, TOKENS, context)


def times(made, *ways):
    """How often something is found out for some ways."""
    found = []
    for first, last in ways:
        made.once("kind", [first], last, lambda: found.append(1))
    return len(found)


def layers(one, other):
    """Two layers that read the stream, and of what they make as much as each computes from its shape."""

    def layer(of, name, by):
        return (
            ("MatMul", f"x {of}", of.lower()), ("Shape", of.lower(), f"{name}-shape"),
            ("Div", f"{name}-shape {by}", f"{name}-half"), ("Slice", f"{of.lower()} {name}-half", f"{name}-part"),
        )  # fmt: skip

    return ("Gather", "table ids", "x"), *layer("A", "one", one), *layer("B", "other", other)


WAYS = ("a", "one-part"), ("b", "other-part")


def test_layers_that_compute_lengths_alike_are_asked_once():
    constants = {"A": np.eye(99), "B": np.eye(99), "two": 2, "twice": 2, "three": 3}
    assert times(reader(*layers("two", "two"), constants=constants), *WAYS) == 1
    assert times(reader(*layers("two", "twice"), constants=constants), *WAYS) == 1
    assert times(reader(*layers("two", "three"), constants=constants), *WAYS) == 2
    assert times(reader(*layers("two", "x"), constants=constants), *WAYS) == 2


def test_other_layers_are_asked_apart():
    """A layer that reads other content, or a large constant of its own."""
    begin = ("Gather", "table ids", "x"), ("MatMul", "x A", "a"), ("MatMul", "x B", "b")
    constants = {"A": np.eye(99), "B": np.eye(99), "C": np.ones(99), "D": np.ones(99)}
    ways = ("a", "one"), ("b", "other")
    same = reader(*begin, ("Mul", "a C", "one"), ("Mul", "b C", "other"), constants=constants)
    assert times(same, *ways) == 1
    for one, other in (("a C", "b D"), ("a x", "b a"), ("a a", "b x"), ("a C", "C b")):
        assert times(reader(*begin, ("Mul", one, "one"), ("Mul", other, "other"), constants=constants), *ways) == 2


def test_which_of_two_halves_goes_on_is_told_whatever_names_small_constants_have():
    constants = {"A": np.eye(99), "B": np.eye(99), "two": 2, "twice": 2}
    begin = ("Gather", "table ids", "x"), ("MatMul", "x A", "a"), ("MatMul", "x B", "b")
    one = ("Split", "a two two", "left right"), ("Relu", "right", "one")
    ways = ("a", "one"), ("b", "other")
    for half, kinds in (("second", 1), ("first", 2)):
        other = ("Split", "b two twice", "first second"), ("Relu", half, "other")
        assert times(reader(*begin, *one, *other, constants=constants), *ways) == kinds


def test_parts_of_one_value_are_asked_apart():
    begin = ("Gather", "table ids", "x"), ("MatMul", "x A", "a"), ("Split", "a two two", "left right")
    made = reader(*begin, constants={"A": np.eye(99), "two": 2})
    assert times(made, ("a", "left"), ("a", "right"), ("a", "a"), ("a", "left")) == 3


def test_the_longest_prompt_is_the_first_that_runs_and_the_context_holds():
    made = reader(("Gather", "table ids", "x"), constants={}, context=64)

    def run(length):
        if length > 16:
            raise BackendError("too long")
        return length

    assert made.longest((256, 64, 16, 8), run) == 16
    assert made.longest((256, 8), lambda length: length) == 8
    assert made.longest((32, made.tokens), run) == TOKENS
    with pytest.raises(Unreadable):
        made.longest((256, 32), run)


def test_the_probes_own_prompt_runs_whatever_the_context():
    assert reader(("Gather", "table ids", "x"), constants={}, context=2).longest([16, TOKENS], lambda n: n) == TOKENS
