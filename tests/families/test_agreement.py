"""The equations on a checkpoint say what transformers says. Nothing here asks the equations what is right."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from llmtrace.families import FAMILIES
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import Attention, Branch, Norm
from llmtrace.testing.tiny import TINY

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]


def test_every_family_has_a_tiny_model():
    assert set(TINY) == set(FAMILIES) - {"gemma3"}  # whose text model is gemma3_text


@pytest.mark.parametrize("family", TINY)
def test_hidden_states_and_logits_agree_with_transformers(family, disagreement):
    assert disagreement(family) < 1e-5


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss", "gemma2"])
def test_they_agree_for_other_weights_too(family, seed, disagreement):
    assert disagreement(family, seed=seed) < 1e-5


def test_every_site_that_transformers_shows_is_the_equations_own(captured):
    _, checkpoint, shown = captured
    equations = Equations(checkpoint.spec, checkpoint.weights)
    ran = dict(equations.run({"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}, list(shown)))
    assert len(shown) > 20
    for site, array in shown.items():
        assert array.shape == ran[site].shape, site
        assert np.linalg.norm(array - ran[site]) <= 1e-5 * np.linalg.norm(array), site


def with_attention(spec, **changes):
    """The spec with other fields in every attention."""

    def changed(branch: Branch) -> Branch:
        is_attention = isinstance(branch.module, Attention)
        return attrs.evolve(branch, module=attrs.evolve(branch.module, **changes)) if is_attention else branch

    blocks = tuple(attrs.evolve(block, branches=tuple(map(changed, block.branches))) for block in spec.blocks)
    return attrs.evolve(spec, blocks=blocks)


WRONG = {
    "a window one token longer": ("mistral", lambda spec: with_attention(spec, window=6)),
    "no softcap": ("gemma2", lambda spec: with_attention(spec, softcap=None)),
    "no clip": ("olmo", lambda spec: with_attention(spec, clip=None)),
    "the other rotary layout": ("gptj", lambda spec: with_attention(spec, rotary=rotary(spec, layout="half"))),
    "a wider rotary": ("gpt_neox", lambda spec: with_attention(spec, rotary=rotary(spec, width=8))),
    "one base for all layers": ("gemma3_text", lambda spec: with_attention(spec, rotary=rotary(spec))),
    "rotary in every layer": ("smollm3", lambda spec: with_attention(spec, rotary=rotary(spec))),
    "slopes before scaling": (
        "falcon",
        lambda spec: with_attention(spec, slopes=tuple(4 * s for s in attention(spec).slopes)),
    ),
    "slopes of another order": ("bloom", lambda spec: with_attention(spec, slopes=attention(spec).slopes[::-1])),
    "the scale of a plain head": ("gemma2", lambda spec: with_attention(spec, scale=24**-0.5)),
    "no positions": ("opt", lambda spec: attrs.evolve(spec, positions=attrs.evolve(spec.positions, offset=0))),
    "an unscaled embedding": ("gemma", lambda spec: attrs.evolve(spec, embed=attrs.evolve(spec.embed, scale=1.0))),
    "no final softcap": ("gemma2", lambda spec: attrs.evolve(spec, unembed=attrs.evolve(spec.unembed, softcap=None))),
    "another epsilon": ("llama", lambda spec: attrs.evolve(spec, ln_final=Norm(1e-2))),
}


def attention(spec):
    """The first layer's."""
    return spec.blocks[0].attention


def rotary(spec, **changes):
    """The first layer's, changed."""
    return attrs.evolve(attention(spec).rotary, **changes)


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_spec_would_not_agree(fault, disagreement):
    family, change = WRONG[fault]
    assert disagreement(family, change=change) > 1e-4
