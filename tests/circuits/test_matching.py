"""Instances are all choices of candidates that keep order and edges: against a brute-force search."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.circuits.grammar import Edge, Node
from llmtrace.circuits.matching import instances
from llmtrace.circuits.motif import Expectation, Motif, RoleEdge
from llmtrace.circuits.where import Where
from llmtrace.errors import CircuitError

LOOK, HALF = Where("pattern[q, q - 1]"), Expectation(">=", 0.5)
MOTIF = Motif(
    "three", "", "", dict.fromkeys("abc", LOOK), dict.fromkeys("abc", HALF), (("a", "b"), ("a", "c")),
    (RoleEdge("a", "b", "k", HALF), RoleEdge("a", "c", "v")),
)  # fmt: skip
HEADS = [Node("head", layer, head) for layer in range(3) for head in range(2)]
SOME = st.lists(st.sampled_from(HEADS), unique=True, max_size=6)


def kappa(edge):
    """A number of its own for every edge; for some none."""
    value = hash(str(edge.source)[1] + str(edge.target)[1:]) % 5
    return None if value == 4 else value / 4


@given(SOME, SOME, SOME)
def test_every_instance_is_found_and_nothing_else(a, b, c):
    expected = set()
    for one, two, three in product(a, b, c):
        if len({one, two, three}) < 3 or not (one.layer < two.layer and one.layer < three.layer):
            continue
        strength = kappa(Edge(one, two, "k"))
        if strength is None or strength >= 0.5:
            expected.add((one, two, three))
    found = instances(MOTIF, {"a": a, "b": b, "c": c}, kappa)
    assert {tuple(node for _, node in each.roles) for each in found} == expected
    assert len(found) == len(expected)
    for each in found:
        assert [str(edge) for edge, _ in each.edges] == [
            f"{each.roles[0][1]}->{each.roles[1][1]}<k>", f"{each.roles[0][1]}->{each.roles[2][1]}<v>",
        ]  # fmt: skip


def test_a_motif_that_tells_no_heads_apart_is_refused():
    loose = Motif("loose", "", "", {"a": LOOK, "b": LOOK}, {"a": HALF, "b": HALF})
    heads = [Node("head", layer, 0) for layer in range(150)]
    with pytest.raises(CircuitError, match="more than 10,000 instances"):
        instances(loose, {"a": heads, "b": heads}, lambda edge: None)
