"""A model's spec is told in words and counted right."""

from __future__ import annotations

from attrs import evolve

import llmtrace
from llmtrace.cli.anatomy import described, parameters, tree
from llmtrace.schema.steps import steps
from llmtrace.spec import Attention, Carry, Norm, Rotary, Yarn

with llmtrace.open("builtin:induction") as _model:
    SPEC = _model.spec


def test_an_unembedding_that_is_the_embedding_counts_once():
    table = steps(SPEC).values()
    assert parameters(table, tied=False) - parameters(table, tied=True) == SPEC.d_model * SPEC.vocab


def test_a_record_says_what_is_not_at_its_default():
    assert described(Norm(1e-5)) == "Norm(eps 1e-05)"
    rotary = Rotary(1e4, 8, scaling=Yarn(4.0, 32))
    a = Attention(2, 1, 8, 8, 0.5, rotary, slopes=(0.5, 0.25, 0.125, 0.1, 0.05), sinks=True)
    assert described(a) == (
        "Attention(heads 2, kv_heads 1, d_head 8, d_value 8, scale 0.5, "
        "rotary Rotary(theta 10000, width 8, scaling Yarn(factor 4, context 32)), "
        "slopes [0.5, 0.25, 0.125, 0.1, … 5 in all], sinks True)"
    )


def test_blocks_stand_together_only_where_they_are_alike():
    first, second = SPEC.blocks
    other = evolve(second, stream_scale=0.5)
    lines = list(tree(evolve(SPEC, blocks=(first, second, other, second))))
    assert [line.strip() for line in lines if line.startswith("  blocks")] == ["blocks.{0..1}", "blocks.2", "blocks.3"]
    assert "    the stream is then multiplied by 0.5" in lines


def test_what_goes_on_of_the_stream_is_said_where_it_is_not_all():
    block = evolve(SPEC.blocks[0], carry_mid=Carry("ln1.out"), carry_post=Carry("", 0.5, weight=True))
    lines = [line.strip() for line in tree(evolve(SPEC, blocks=(block,)))]
    assert "resid_mid ← Carry(reads ln1.out)" in lines
    assert "resid_post ← Carry(scale 0.5, weight True)" in lines
    assert not [line for line in lines if line.startswith("resid_pre")]
