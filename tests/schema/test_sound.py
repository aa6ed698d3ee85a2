"""A spec that contradicts itself, or has names that are none of the schema's, is refused before an equation meets it."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from attrs import evolve

from llmtrace.errors import ModelOpenError
from llmtrace.schema.rotary import frequencies
from llmtrace.schema.sound import sound
from llmtrace.spec import (
    Attention,
    Branch,
    Carry,
    Clamp,
    DynamicNtk,
    Gate,
    GatedMlp,
    Linear,
    Llama3,
    LongRope,
    Mixer,
    ModelSpec,
    Norm,
    Positions,
    PreNorm,
    Rotary,
    Unembedding,
    Yarn,
)
from tests.specs import SPECS

SPEC = SPECS["sequential"]
BLOCK = SPEC.blocks[0]
ATTENTION = Attention(4, 2, 8, 8, 0.35)


def with_block(**change) -> ModelSpec:
    return evolve(SPEC, blocks=(BLOCK, evolve(BLOCK, **change)))


def with_attention(**change) -> ModelSpec:
    return with_block(branches=(Branch("attn", "ln1.out", evolve(ATTENTION, **change)), BLOCK.branches[1]))


def turned(scaling=None, theta=10000.0, width=8) -> ModelSpec:
    return with_attention(rotary=Rotary(theta, width, scaling=scaling))


def normed(**change) -> ModelSpec:
    return evolve(SPEC, ln_final=evolve(SPEC.ln_final, **change))


def with_mlp(mlp) -> ModelSpec:
    return with_block(branches=(BLOCK.branches[0], Branch("mlp", "ln2.out", mlp)))


ESC = "attn\x1b]0;pwned\x07"
UNSOUND = {
    "a negative epsilon": (normed(eps=-1e-5), "eps = -1e-05 in a norm; it must not be negative"),
    "a stream that goes on as what is no norm": (with_block(carry_mid=Carry("resid_pre")), "goes on as 'resid_pre'; it may as ln1.out, ln2.out"),
    "a stream that enters a block as a norm": (with_block(carry_pre=Carry("ln1.out")), "goes on into a block as 'ln1.out'"),
    "a norm over nothing": (normed(over=""), "a norm over ''"),
    "a norm over an axis that does not exist": (normed(over="nope"), "a norm over 'nope'"),
    "a norm over an axis twice": (normed(over="d_head d_head"), "a norm over 'd_head d_head'"),
    "a norm of each of nothing known": (normed(each="\x1b"), r"a norm over '\\x1b d_model'"),
    "a rotary base of zero": (turned(theta=0.0), "theta = 0.0; it must be above zero"),
    "a negative rotary base": (turned(theta=-3.0), "theta = -3.0; it must be above zero"),
    "YaRN to the base of one": (turned(Yarn(2.0, 64), theta=1.0), "theta = 1.0 with YaRN"),
    "YaRN of a context of nothing": (turned(Yarn(2.0, 0)), "context = 0; it must be a positive integer"),
    "YaRN of a context beyond a float": (turned(Yarn(2.0, 10**5000)), "context = an integer of too many digits"),
    "YaRN without a stretch": (turned(Yarn(0.0, 64)), "factor = 0.0; it must be above zero"),
    "YaRN with bounds that never turn": (turned(Yarn(2.0, 64, slow=0.0)), "slow = 0.0; it must be above zero"),
    "a linear factor of zero": (turned(Linear(0.0)), "factor = 0.0; it must be above zero"),
    "a linear factor beyond a float": (turned(Linear(10**400)), "factor = .*; it must be a finite number"),
    "a dynamic context of nothing": (turned(DynamicNtk(2.0, 0)), "context = 0; it must be a positive integer"),
    "a dynamic base of one pair": (turned(DynamicNtk(2.0, 64), width=2), "one pair of channels"),
    "Llama 3 without a context": (turned(Llama3(8.0, 1.0, 4.0, 0)), "context = 0"),
    "Llama 3 with one bound": (turned(Llama3(8.0, 4.0, 4.0, 64)), "bounds of 4.0 and 4.0 turns"),
    "LongRoPE without a context": (turned(LongRope((1.0,) * 4, (1.0,) * 4, 0)), "context = 0"),
    "LongRoPE with too few factors": (turned(LongRope((1.0,) * 4, (1.0,) * 3, 8)), "not 4 numbers each"),
    "LongRoPE that divides by zero": (turned(LongRope((1.0,) * 4, (1.0, 1.0, 1.0, 0.0), 8)), "a LongRoPE factor of 0.0"),
    "LongRoPE with a text for a factor": (turned(LongRope((1.0,) * 4, (1.0, "x", 1.0, 1.0), 8)), "long = 'x'; it must be a finite"),
    "half a pair of channels": (turned(width=3), "3 rotated channels; only an even number"),
    "more rotated channels than there are": (turned(width=10), "10 rotated channels of heads that have 8"),
    "a slope too few": (with_attention(slopes=(1.0, 2.0, 3.0)), "3 slopes for 4 heads"),
    "a bias of nothing": (with_attention(biases="QX"), "biases 'QX'"),
    "heads that cannot share": (with_attention(kv_heads=3), "4 query heads, which 3 key/value heads cannot share"),
    "no softcap but zero": (with_attention(softcap=0.0), "softcap = 0.0; it must be above zero"),
    "a gate that is no function": (with_attention(gate=Gate("nope")), "the activation 'nope'"),
    "logits capped at nothing": (evolve(SPEC, unembed=Unembedding(softcap=-1.0)), "softcap = -1.0; it must be above zero"),
    "a clamp to nothing": (with_mlp(GatedMlp(4, "silu", clamp=Clamp(0.0))), "limit = 0.0; it must be above zero"),
    "an MLP of no width": (with_mlp(GatedMlp(0, "silu")), "d_mlp = 0; it must be a positive integer"),
    "truth for a size": (evolve(SPEC, vocab=True), "vocab = True; it must be a positive integer"),
    "positions that begin behind their end": (evolve(SPEC, positions=Positions(4, 4)), "4 positions that begins at 4"),
    "a branch that is an escape sequence": (
        with_block(branches=(evolve(BLOCK.branches[0], name=ESC), BLOCK.branches[1])), r"a branch 'attn\\x1b\]0;pwned\\x07'",
    ),
    "two branches of one name": (with_block(branches=(BLOCK.branches[0],) * 2), "a branch 'attn' .* each once"),
    "attention called MLP": (with_block(branches=(evolve(BLOCK.branches[0], name="mlp"),)), "a branch 'mlp' that is Attention"),
    "a mixer that is an escape sequence": (
        with_block(branches=(Branch("mixer", "ln1.out", Mixer("\x1b[2J")),)), r"a mixer of the kind '\\x1b\[2J'",
    ),
    "a norm of another name": (with_block(norms=(PreNorm("\x1bln", "resid_pre", Norm(1e-5)),)), r"a norm called '\\x1bln'"),
    "a norm of an MLP": (with_block(norms=(PreNorm("ln1", "mlp.out", Norm(1e-5)),)), "a part ln1 that reads 'mlp.out'"),
    "a branch that reads what is not there": (
        with_block(branches=(evolve(BLOCK.branches[0], reads="ln7.out"),)), r"a part attn that reads 'ln7\.out'",
    ),
    "a family that is an escape sequence": (evolve(SPEC, family="\x1b]0;"), r"calls its family '\\x1b\]0;'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNSOUND)
def test_an_unsound_spec_is_refused_with_what_is_wrong_and_without_control_characters(fault):
    spec, message = UNSOUND[fault]
    with pytest.raises(ModelOpenError, match=message) as caught:
        sound(spec, "The file")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "fault", ["a negative epsilon", "a linear factor of zero", "truth for a size", "LongRoPE with a text for a factor"]
)
def test_also_once_the_types_of_the_records_are_resolved(fault):
    """Reading a saved trace does that, in place."""
    for record in (Norm, Linear, ModelSpec, LongRope):
        attrs.resolve_types(record)
    test_an_unsound_spec_is_refused_with_what_is_wrong_and_without_control_characters(fault)


@pytest.mark.parametrize("name", SPECS)
def test_a_sound_spec_is_itself(name):
    assert sound(SPECS[name]) is SPECS[name]


@pytest.mark.parametrize(
    "scaling",
    [
        Linear(0.5),
        DynamicNtk(0.5, 4),
        Yarn(0.5, 1, fast=1e9, slow=1e-9),
        Llama3(0.1, 0.0, 1e-9, 1),
        LongRope((0.1,) * 4, (9.0,) * 4, 1),
    ],
)
@pytest.mark.parametrize("theta", [1e-6, 1.0, 1.5, 1e9])
def test_what_is_sound_has_finite_frequencies(scaling, theta):
    """The odder a sound scaling, the nearer it is to a division by zero."""
    if isinstance(scaling, Yarn) and theta <= 1:
        pytest.skip("refused")
    spec = sound(turned(scaling, theta))
    rotary = spec.blocks[1].attention.rotary
    assert np.isfinite(frequencies(rotary, 64)).all()
