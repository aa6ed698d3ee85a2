"""Two specs are compared field by field, and one record of a spec is replaced wherever its equal stands."""

from __future__ import annotations

from attrs import evolve

from llmtrace.comparison.specs import differences, leaves, said, swapped, unlike
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import Linear, Norm, Rotary
from tests.specs import GQA, RMS, model, sequential

SPEC = model(sequential(), sequential(), sequential())


def with_block(place, block):
    blocks = list(SPEC.blocks)
    blocks[place] = block
    return evolve(SPEC, blocks=tuple(blocks))


def test_equal_specs_differ_in_nothing_and_names_are_no_difference():
    assert differences(SPEC, SPEC) == []
    assert differences(SPEC, evolve(SPEC, family="other", context=7)) == []


def test_a_field_is_told_once_with_the_blocks_in_which_it_differs():
    other = sequential(evolve(GQA, rotary=Rotary(500_000.0, 6)))
    (one,) = differences(SPEC, evolve(with_block(0, other), blocks=(other, SPEC.blocks[1], other)))
    assert one.field.endswith("rotary.theta")
    assert (one.reference, one.candidate, one.blocks) == ("100", "500,000", (0, 2))


def test_fields_of_the_ends_have_no_blocks_and_a_missing_record_is_none():
    (eps,) = differences(SPEC, evolve(SPEC, ln_final=Norm(1e-6)))
    assert (eps.field, eps.reference, eps.candidate, eps.blocks) == ("ln_final.eps", "1e-05", "1e-06", ())
    (scaling,) = differences(SPEC, with_block(1, sequential(evolve(GQA, rotary=Rotary(100.0, 6, scaling=Linear(4.0))))))
    assert scaling.reference == "none" and "factor 4" in scaling.candidate and scaling.blocks == (1,)


def test_numbers_that_differ_by_rounding_are_the_same():
    assert differences(SPEC, evolve(SPEC, ln_final=Norm(1e-5 * (1 + 1e-7)))) == []
    assert len(differences(SPEC, evolve(SPEC, ln_final=Norm(1e-5 * (1 + 1e-5))))) == 1


def test_another_number_of_blocks_is_a_difference():
    found = differences(SPEC, evolve(SPEC, blocks=SPEC.blocks[:2]))
    assert [(each.field, each.reference, each.candidate) for each in found] == [("blocks", "3", "2")]


def test_unlike_names_fields_of_one_record_and_leaves_goes_down():
    other = evolve(GQA, window=3, rotary=Rotary(100.0, 4))
    assert unlike(GQA, other) == ["rotary", "window"]
    assert {(name, r, c) for name, r, c in leaves(GQA, other)} == {("rotary.width", "6", "4"), ("window", "none", "3")}


def test_a_record_is_replaced_where_its_equal_stands_and_nothing_else_is_touched():
    fresh = Norm(1e-5)  # equal to what stands there, and another object: a spec's steps may come from its equal
    changed = swapped(SPEC.blocks[0], fresh, Norm(1e-3))
    assert [each.norm.eps for each in changed.norms] == [1e-3, 1e-3]
    assert changed.branches == SPEC.blocks[0].branches
    assert swapped(SPEC.blocks[0], Norm(0.5), RMS) is SPEC.blocks[0]


def test_the_record_of_a_step_may_be_that_of_an_equal_spec_and_is_found_all_the_same():
    again = model(sequential(evolve(GQA)), sequential(evolve(GQA)), sequential(evolve(GQA)))
    assert Equations(SPEC).steps and again == SPEC and again is not SPEC
    record = Equations(again).steps["blocks.1.attn.rot_q"].record
    changed = swapped(again.blocks[1], record, evolve(record, scale=9.0))
    assert changed.attention.scale == 9.0


def test_values_in_few_words():
    assert said(True) == "yes" and said(()) == "none" and said(0.125) == "0.125" and said("gelu") == "gelu"
    assert said(Linear(4.0)) == "Linear(factor 4)"
