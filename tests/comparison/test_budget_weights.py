"""Which weights are swapped, and which at once: by hand, on a small model whose tensors are said to differ by so much."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from llmtrace.comparison.budget import Unswapped
from llmtrace.comparison.budget_weights import parts
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.sides import Side
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import needed
from llmtrace.spec import Unembedding
from llmtrace.trace import ModelInfo
from tests import specs

PLAIN, TIED = (specs.model(specs.sequential(), unembed=Unembedding(tied=tied)) for tied in (False, True))
ENDS = ("embed.W_E", "unembed.W_U")
K, V = "blocks.0.attn.W_K", "blocks.0.attn.W_V"
"""2 heads · 12 channels · 6 = 144 numbers each."""


def side(spec, without=()):
    weights = {name: array for name, array in specs.random_weights(spec).items() if name not in without}
    return Side(ModelInfo("a", "b", "c"), Equations(spec, weights), {})


def tensor(name, error, stored="Q8_0", what=""):
    return Tensor(name, stored, error, 0.0, 0.0, True, what)


def found(*tensors, reference=PLAIN, candidate=PLAIN, tied=(), without=(), lacking=(), why=()):
    every = [weight.name for weight, _ in needed(reference)]
    able = SimpleNamespace(
        tied=[set(group) for group in tied],
        replaceable=[name for name in every if name not in without],
        irreplaceable=dict(why),
    )
    return parts(side(reference), side(candidate, lacking), able, tensors)


def test_what_differs_by_no_more_than_two_readings_is_not_swapped():
    """float32 has 24 bits: of two roundings, and two sums, 4 · 2⁻²⁴."""
    made, refused = found(tensor(K, 0.0), tensor(V, 4 * 2.0**-24), tensor("blocks.0.mlp.W_in", 5 * 2.0**-24))
    assert [part.names for part in made] == [("blocks.0.mlp.W_in",)]
    assert refused == []


def test_a_weight_is_what_the_candidate_has_in_the_type_that_it_has_it_in():
    other = {name: array + 1 for name, array in specs.random_weights(PLAIN).items()}
    able = SimpleNamespace(tied=(), replaceable=[K], irreplaceable={})
    (part,), _ = parts(
        side(PLAIN), Side(ModelInfo("a", "b", "c"), Equations(PLAIN, other), {}), able, [tensor(K, 0.25, "F16")]
    )
    assert (part.names, part.stored, part.numbers, part.bytes, part.relative_error) == ((K,), "F16", 144, 288, 0.25)
    weights = part.weights()
    assert list(weights) == [K]
    np.testing.assert_array_equal(weights[K], other[K])


@pytest.mark.parametrize("errors", [(0.1, 0.0), (0.0, 0.1), (0.05, 0.1), (0.1, 0.05)])
def test_what_lies_in_one_memory_is_swapped_at_once_as_the_worse_of_the_two(errors):
    """144 numbers are five blocks of Q8_0, of 34 bytes each, or 288 bytes of float16."""
    (part,), _ = found(tensor(K, errors[0]), tensor(V, errors[1], "F16"), tied=[(V, K)])
    assert part.names == (K, V)
    assert (part.numbers, part.bytes, part.relative_error) == (288, 5 * 34 + 288, 0.1)
    assert part.stored == ("Q8_0" if errors[0] > errors[1] else "F16")


def test_of_several_each_has_the_size_of_its_own_type():
    """In the order of their names these come otherwise than in dataflow order: 12 · 10 numbers, then 10, then 10 · 12."""
    names = [f"blocks.0.mlp.{name}" for name in ("W_in", "b_in", "W_out")]
    (part,), _ = found(
        *(tensor(name, 0.1, kind) for name, kind in zip(names, ("F32", "F16", "Q8_0"), strict=True)), tied=[names]
    )
    assert (part.numbers, part.bytes) == (120 + 10 + 120, 4 * 120 + 2 * 10 + 4 * 34)


def test_of_a_type_that_is_not_known_no_size_is_known():
    (part,), _ = found(tensor(K, 0.1, "?"), tensor(V, 0.1), tied=[(K, V)])
    assert part.bytes is None


def test_a_tied_embedding_is_counted_once():
    (part,), _ = found(*(tensor(name, 0.1, "F32") for name in ENDS), reference=TIED, candidate=TIED)
    assert (part.names, part.numbers, part.bytes) == (ENDS, 11 * 12, 4 * 11 * 12)


def test_a_tied_embedding_is_one_tensor_with_what_the_reference_has_in_the_same_memory():
    (part,), _ = found(
        *(tensor(name, 0.1, "F32") for name in (*ENDS, K)), reference=TIED, candidate=TIED, tied=[(ENDS[1], K)]
    )
    assert set(part.names) == {*ENDS, K}


@pytest.mark.parametrize(("reference", "candidate"), [(PLAIN, TIED), (TIED, PLAIN)])
def test_where_one_side_has_two_tensors_each_is_swapped_by_itself(reference, candidate):
    made, _ = found(*(tensor(name, 0.1) for name in ENDS), reference=reference, candidate=candidate)
    assert [part.names for part in made] == [ENDS[:1], ENDS[1:]]


def test_unless_the_reference_has_one_memory_for_both_and_then_both_are_counted():
    (part,), _ = found(*(tensor(name, 0.1, "F32") for name in ENDS), reference=TIED, tied=[ENDS])
    assert (part.names, part.numbers, part.bytes) == (ENDS, 2 * 11 * 12, 2 * 4 * 11 * 12)


@pytest.mark.parametrize(
    ("tensors", "options", "why"),
    [
        ((tensor(K, math.inf, what="transposed"),), {}, "transposed"),
        ((tensor(K, math.inf),), {}, "it has another shape, or numbers that are not finite"),
        ((tensor(K, 0.1),), {"without": (K,)}, "the reference cannot replace it: its numbers are not at hand"),
        ((tensor(K, 0.1),), {"without": (K,), "why": [(K, "it is computed")]}, "the reference cannot replace it: it is computed"),
    ],
)  # fmt: skip
def test_what_cannot_be_swapped_is_said_with_the_reason(tensors, options, why):
    made, refused = found(*tensors, tensor(V, 0.1), **options)
    assert [part.names for part in made] == [(V,)]
    assert refused == [Unswapped((K,), why)]


def test_what_is_one_tensor_with_a_weight_that_cannot_be_swapped_cannot_be_either():
    assert found(tensor(K, 0.1), tensor(V, math.inf), tied=[(K, V)]) == (
        [], [Unswapped((K, V), "it has another shape, or numbers that are not finite")],
    )  # fmt: skip
    made, refused = found(tensor(K, 0.1), tied=[(K, V)], lacking=(V,))
    assert made == []
    assert refused == [
        Unswapped((V,), "the candidate has none, or none that can be read"),
        Unswapped((K, V), f"it is one tensor with {V}, which the candidate does not have"),
    ]
