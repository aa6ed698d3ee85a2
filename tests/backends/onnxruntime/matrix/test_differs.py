"""What two specs compute otherwise, in words."""

from __future__ import annotations

import pytest
from attrs import evolve

from llmtrace.families import spec_of
from llmtrace.schema.rotary import frequencies
from llmtrace.spec import Branch, LongRope, Mixer, Moe, Norm, Rotary
from llmtrace.testing.tiny import TINY
from tests.backends.onnxruntime.matrix.differs import differences

SPEC = spec_of({"model_type": "mistral", **TINY["mistral"]})
LENGTH = 11


def changed(spec, layers, **fields):
    """Attention of some layers with other fields."""
    blocks = list(spec.blocks)
    for layer in layers:
        first, *rest = blocks[layer].branches
        module = evolve(first.module, **fields)
        blocks[layer] = evolve(blocks[layer], branches=(evolve(first, module=module), *rest))
    return evolve(spec, blocks=tuple(blocks))


def test_a_spec_does_not_differ_from_itself_in_other_words():
    assert differences(SPEC, SPEC, LENGTH) == ()
    named = evolve(SPEC, family="onnx", context=None, unembed=evolve(SPEC.unembed, tied=not SPEC.unembed.tied))
    assert differences(named, SPEC, LENGTH) == ()
    rotary = SPEC.blocks[0].branches[0].module.rotary
    divisors = tuple(float(1 / one) for one in frequencies(rotary, LENGTH))
    told = Rotary(1.0, rotary.width, rotary.layout, LongRope(divisors, divisors, 4096))
    assert differences(changed(SPEC, range(len(SPEC.blocks)), rotary=told), SPEC, LENGTH) == ()


def test_each_field_is_named_with_its_layers():
    every = range(len(SPEC.blocks))
    window = SPEC.blocks[0].branches[0].module.window
    assert differences(changed(SPEC, every, window=None), SPEC, LENGTH) == (f"blocks.*.attn.window {window} → none",)
    assert differences(changed(SPEC, [1], softcap=20.0), SPEC, LENGTH) == ("blocks.1.attn.softcap none → 20",)
    (line,) = differences(changed(SPEC, [0], rotary=Rotary(7.0, 8)), SPEC, LENGTH)
    assert line.startswith("blocks.0.attn.rotary Rotary(")
    other = evolve(SPEC, ln_final=Norm(0.5), embed=evolve(SPEC.embed, scale=3.0))
    assert {line.split(" ")[0] for line in differences(other, SPEC, LENGTH)} == {"ln_final.eps", "embed.scale"}


@pytest.mark.parametrize("neutral", [(), ("ln_final.b",)], ids=["a bias", "a bias of noughts"])
def test_a_weight_that_changes_nothing_is_no_difference(neutral):
    found = evolve(SPEC, ln_final=evolve(SPEC.ln_final, bias=True))
    assert differences(found, SPEC, LENGTH, neutral) == (() if neutral else ("ln_final.bias False → True",))


def test_a_branch_that_was_not_read_says_nothing():
    blocks = list(SPEC.blocks)
    blocks[0] = evolve(
        blocks[0],
        norms=blocks[0].norms[1:],
        branches=(Branch("mixer", "resid_pre", Mixer("unread")), blocks[0].branches[1]),
    )
    assert differences(evolve(SPEC, blocks=tuple(blocks)), SPEC, LENGTH) == ()


def test_scores_divided_by_their_sum_are_scores_of_the_chosen():
    spec = spec_of({"model_type": "mixtral", **TINY["mixtral"]})
    module = spec.blocks[0].branches[1].module
    assert isinstance(module, Moe)
    other = evolve(module, scoring="topk_softmax", renormalise=False)
    blocks = tuple(
        evolve(block, branches=(block.branches[0], evolve(block.branches[1], module=other))) for block in spec.blocks
    )
    assert differences(evolve(spec, blocks=blocks), spec, LENGTH) == ()


def test_a_norm_of_two_branches_is_named_once():
    spec = spec_of({"model_type": "gptj", **TINY["gptj"]})
    blocks = tuple(
        evolve(block, norms=tuple(evolve(one, norm=evolve(one.norm, eps=0.5)) for one in block.norms))
        for block in spec.blocks
    )
    (line,) = differences(evolve(spec, blocks=blocks), spec, LENGTH)
    assert line == "blocks.*.ln1.eps 1e-05 → 0.5"
