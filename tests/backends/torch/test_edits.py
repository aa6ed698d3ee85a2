"""Edits on the runtime are the reference's, on every family; which sites can be edited follows from where their readers are."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import llmtrace
from llmtrace import edits
from llmtrace.errors import EditNotSupportedError
from llmtrace.schema.steps import any_layer, layer_of
from llmtrace.schema.verify import distance
from llmtrace.testing.tiny import TINY

TOKENS = [5, 17, 3, 88, 41, 41, 9]
EVERYWHERE = {
    "embed",
    "blocks.L.resid_pre",
    "blocks.L.resid_post",
    "blocks.L.attn.out",
    "blocks.L.attn.z_post",
    "logits",
}
"""What can be edited in nearly every family."""
EXCEPT = {
    "embed": {"gemma", "gemma2", "gemma3_text", "vaultgemma", "granite", "granitemoe", "granitemoeshared", "bloom"},
}


@pytest.mark.parametrize("family", TINY)
def test_an_edit_of_any_editable_site_has_the_references_effect(opened, tiny, family):
    attention = "sdpa" if family == "falcon" else "eager"  # transformers adds Falcon's ALiBi twice under eager
    model = opened(family, attention=attention)
    with llmtrace.open(tiny(family), backend="reference") as reference:
        sites = [site for site in model.session.editable if layer_of(site) in (None, 1)]
        for place, site in enumerate(sites):
            make = (edits.scale, edits.add)[place % 2]
            change = [make(site, 1.5, tokens=[1, -1] if place % 3 else None)]
            found = model.trace(TOKENS, capture=[site, "logits"], edits=change)
            expected = reference.trace(TOKENS, capture=[site, "logits"], edits=change)
            for name in found:
                assert (
                    distance(found[name].array, expected[name].array, 1 if found[name].axes[0] == "head" else 0)[0]
                    < 1e-4
                ), (site, name)


@pytest.mark.parametrize("family", TINY)
def test_the_sites_that_one_expects_can_be_edited(opened, family):
    editable = {any_layer(site) for site in opened(family).session.editable}
    expected = {site for site in EVERYWHERE if family not in EXCEPT.get(site, set())}
    assert expected <= editable, sorted(expected - editable)


def test_what_is_captured_can_be_edited_also_where_no_module_has_it(opened):
    model = opened("llama")
    assert {"blocks.0.resid_mid", "blocks.0.attn.pattern", "blocks.0.attn.rot_k"} <= set(model.session.editable)


def test_what_the_kernel_keeps_to_itself_cannot_be_edited(opened):
    model = opened("llama", attention="sdpa")
    with pytest.raises(
        EditNotSupportedError,
        match=r"blocks\.0\.attn\.pattern cannot be edited on the backend torch, which edits embed",
    ):
        model.trace(TOKENS, edits=[llmtrace.ablate("blocks.0.attn.pattern")])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_edit_is_rounded_to_the_type_that_the_model_runs_in(opened, dtype):
    model = opened("llama", dtype=dtype)
    signal = model.trace(TOKENS, edits=[edits.replace("blocks.1.attn.out", 0.1)])["blocks.1.attn.out"].array
    assert signal.dtype.name == dtype
    np.testing.assert_array_equal(signal, np.full_like(signal, 0.1))


def test_the_model_is_as_it_was_after_an_edit_and_after_a_failure(opened):
    model = opened("llama")
    before = model.trace(TOKENS, capture="logits")["logits"].array

    class Fails:
        def signal(self, site, array):
            raise RuntimeError("no")

        def layer_done(self, layer):
            pass

    from llmtrace.calling import run

    ready = model.plan(model.tokens(TOKENS), "blocks.0.attn.out", [llmtrace.ablate("blocks.0.attn.q")])
    with pytest.raises(RuntimeError, match="no"):
        run(model.session, ready.request, Fails())
    np.testing.assert_array_equal(model.trace(TOKENS, capture="logits")["logits"].array, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.session.model.modules())
