"""Dataflow, held to what searching every way of a random graph finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

nx = pytest.importorskip("networkx")

from llmtrace.dataflow.graph import Graph, Vertex

SEED = "v0"


@st.composite
def graphs(draw):
    """Vertices of one or two outputs that read one to three earlier values; some read a shape, some a constant."""
    values, vertices = [SEED, "constant"], []
    for index in range(draw(st.integers(1, 14))):
        latest = st.sampled_from(values[-4:])  # long ways are more telling than broad ones
        reads = tuple(draw(st.lists(st.one_of(latest, st.sampled_from(values)), min_size=1, max_size=3)))
        makes = tuple(f"v{index + 1}{letter}" for letter in "ab"[: draw(st.integers(1, 2))])
        op = draw(st.sampled_from(["Add", "Add", "Add", "Shape"]))
        vertices.append(Vertex(index, op, "", reads, makes))
        values += makes
    return Graph(vertices, ["constant"], {}, [SEED])


def edges(graph):
    """From each value to those that are made of it, but for those made of its shape."""
    found = nx.DiGraph()
    found.add_node(SEED)
    for vertex in graph.vertices:
        if vertex.op != "Shape":
            found.add_edges_from((read, made) for read in vertex.reads for made in vertex.makes)
    return found.subgraph({SEED} | nx.descendants(found, SEED))


def everything(graph):
    return [SEED, *(name for vertex in graph.vertices for name in vertex.makes)]


@settings(deadline=None)
@given(graphs())
def test_a_value_follows_from_another_where_a_way_leads_there(graph):
    flow, ways = graph.flow(SEED), edges(graph)
    for later in everything(graph):
        assert (later in flow) == (later in ways)
        for earlier in everything(graph):
            expected = later in ways and earlier in ways and nx.has_path(ways, earlier, later)
            assert flow.follows(later, earlier) == expected


@settings(deadline=None)
@given(graphs(), st.data())
def test_the_vertices_between_two_values_are_those_on_some_way(graph, data):
    flow, ways = graph.flow(SEED), edges(graph)
    first, last = (data.draw(st.sampled_from(everything(graph))) for _ in range(2))
    found = [vertex.index for vertex in flow.between(first, last)]
    expected = []
    if first in ways and last in ways:
        reached = {first} | nx.descendants(ways, first)
        leading = {last} | nx.ancestors(ways, last)
        expected = [
            vertex.index
            for vertex in graph.vertices
            if vertex.op != "Shape" and reached & set(vertex.reads) and leading & set(vertex.makes)
        ]
    assert found == expected


@settings(deadline=None)
@given(graphs(), st.data())
def test_a_chain_is_the_values_without_which_there_is_no_way(graph, data):
    flow, ways = graph.flow(SEED), edges(graph)
    first, last = (data.draw(st.sampled_from(everything(graph))) for _ in range(2))
    if first not in ways or last not in ways or not nx.has_path(ways, first, last):
        assert flow.chain(first, last) == ()
        return

    def needed(name):
        if name in (first, last):
            return True
        left = ways.subgraph(set(ways) - {name})
        return not nx.has_path(left, first, last)

    between = nx.descendants(ways, first) & nx.ancestors(ways, last) | {first, last}
    assert flow.chain(first, last) == tuple(name for name in everything(graph) if name in between and needed(name))


@settings(deadline=None)
@given(graphs())
def test_a_chain_of_dominators_is_what_networkx_finds(graph):
    flow, ways = graph.flow(SEED), edges(graph)
    dominators = nx.immediate_dominators(ways, SEED)
    for last in ways:
        chain = [last]
        while chain[-1] != SEED:
            chain.append(dominators[chain[-1]])
        assert flow.chain(SEED, last) == tuple(reversed(chain))


@settings(deadline=None)
@given(graphs())
def test_constants_are_what_no_input_changes(graph):
    changed = {SEED}
    for vertex in graph.vertices:
        if changed & set(vertex.reads):
            changed |= set(vertex.makes)
    assert graph.constants == {"constant", *everything(graph)} - changed


def test_a_random_number_is_no_constant():
    graph = Graph([Vertex(0, "RandomNormal", "", (), ("noise",)), Vertex(1, "Constant", "", (), ("one",))], [], {}, [])
    assert graph.constants == {"one"}


def test_the_order_of_values_is_that_of_computation():
    graph = Graph(
        [Vertex(0, "A", "", ("x",), ("y", "", "z")), Vertex(1, "B", "", ("y", "", "w"), ("u",))], ["w"], {}, ["x"]
    )
    flow = graph.flow("x")
    assert sorted("uzyx", key=flow.order) == ["x", "y", "z", "u"]
    assert flow.reads(graph.vertices[1]) == ("y",)
    assert graph.vertices[1].reading(1) == graph.vertices[1].reading(7) == ""
    assert [vertex.op for vertex in graph.readers["y"]] == ["B"]
    assert "" not in graph.readers
    assert "" not in graph.maker


@pytest.mark.parametrize(("op", "expected"), [("Gather", True), ("Slice", True), ("Squeeze", True), ("Concat", False)])
def test_a_length_that_is_picked_of_a_shape_is_one_number(op, expected):
    vertices = [
        Vertex(0, "Shape", "", ("x",), ("s",)),
        Vertex(1, op, "", ("s", "which"), ("n",)),
        Vertex(2, "Neg", "", ("n",), ("m",)),
    ]
    graph = Graph(vertices, ["which"], {"which": 3}, ["x"])
    assert graph.is_number("n") == graph.is_number("m") == expected
