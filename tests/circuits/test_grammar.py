"""Nodes and edges are written as the field writes them, and an edge runs forward."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.circuits import Edge, Node
from llmtrace.errors import CircuitError

NODES = st.one_of(
    st.just(Node("input")),
    st.just(Node("logits")),
    st.builds(Node, st.just("head"), st.integers(0, 99), st.integers(0, 99)),
    st.builds(Node, st.just("mlp"), st.integers(0, 99)),
)


@given(NODES)
def test_a_node_is_read_as_it_is_written(node):
    assert Node.parse(str(node)) == node


@given(NODES, NODES, st.sampled_from(["", "q", "k", "v"]))
def test_an_edge_is_read_as_it_is_written_or_refused_both_ways(source, target, reads):
    try:
        edge = Edge(source, target, reads)
    except CircuitError:
        assert not source.precedes(target) or (target.kind == "head") != bool(reads)
    else:
        assert Edge.parse(str(edge)) == edge


@pytest.mark.parametrize("text", ["a1.h2", "a10.h0", "m0", "input", "logits"])
def test_the_names_are_the_fields(text):
    assert str(Node.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "a1", "a01.h2", "a1.h-2", "h1", "A1.h2", "m", "m1 ", "input0", "a1.h2\n", "a١.h1"]
)
def test_what_is_no_node_is_refused(text):
    with pytest.raises(CircuitError, match="is no node"):
        Node.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a0.h0->a1.h0", "by which input"),
        ("a0.h0->m0<q>", "has no <q>"),
        ("a0.h0->logits<k>", "has no <q>"),
        ("a1.h0->a0.h0<q>", "runs backwards"),
        ("a0.h0->a0.h1<q>", "runs backwards"),
        ("m0->m0", "runs backwards"),
        ("logits->m0", "runs backwards"),
        ("a0.h0->input", "runs backwards"),
        ("a0.h0>a1.h0<q>", "is no edge"),
        ("a0.h0->a1.h0<z>", "is no edge"),
    ],
)
def test_what_is_no_edge_is_refused(text, why):
    with pytest.raises(CircuitError, match=why):
        Edge.parse(text)


@pytest.mark.parametrize(("layers", "heads", "edges"), [(12, 12, 32_491), (24, 14, 179_749), (26, 8, 74_218)])
def test_the_edges_of_known_models_are_as_many_as_the_benchmark_says(layers, heads, edges):
    """GPT-2 small, Qwen2.5-0.5B and Gemma-2-2B in MIB (Mueller et al. 2025), counted by asking every pair."""
    nodes = [Node("input"), *(Node("mlp", layer) for layer in range(layers)), Node("logits")]
    nodes += [Node("head", layer, head) for layer in range(layers) for head in range(heads)]
    found = sum(
        (3 if target.kind == "head" else 1) for source, target in product(nodes, nodes) if source.precedes(target)
    )
    assert found == edges


def test_heads_beside_an_mlp_do_not_feed_it():
    assert Node.parse("a1.h0").precedes(Node.parse("m1"))
    assert not Node.parse("a1.h0").precedes(Node.parse("m1"), parallel=True)
