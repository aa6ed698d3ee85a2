"""What TransformerLens calls a site is accepted where it means the same value, and refused with the reason where it does not."""

from __future__ import annotations

import pytest

import llmtrace
from llmtrace.errors import UnknownSignalError
from llmtrace.schema.names import NAMES, from_transformer_lens


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("hook_embed", "embed"),
        ("blocks.0.hook_resid_pre", "blocks.0.resid_pre"),
        ("blocks.11.hook_out", "blocks.11.resid_post"),
        ("blocks.3.attn.hook_attn_scores", "blocks.3.attn.scores"),
        ("blocks.*.attn.hook_pattern", "blocks.*.attn.pattern"),
        ("blocks.{4..8}.hook_mlp_out", "blocks.{4..8}.mlp_out"),
        ("blocks.0.mlp.hook_out", "blocks.0.mlp.out"),
        ("blocks.-1.ln2.hook_scale", "blocks.-1.ln2.scale"),
        ("blocks.2.ln1_post.hook_normalized", "blocks.2.attn_post.normalized"),
        ("ln_final.hook_normalized", "ln_final.normalized"),
    ],
)
def test_a_hook_that_means_the_same_value_is_our_site(hook, site):
    assert from_transformer_lens(hook) == site


@pytest.mark.parametrize("hook", ["blocks.0.mlp.hook_expert_weights", "unembed.hook_out"])
def test_a_hook_that_means_another_value_is_refused_with_the_difference(hook):
    with pytest.raises(UnknownSignalError, match=r"is not the value of our .*: .*Name ours"):
        from_transformer_lens(hook)


@pytest.mark.parametrize("hook", ["blocks.0.hook_nothing", "hook_tokens", "blocks.0.attn.hook_q.more"])
def test_a_hook_that_we_have_no_site_for_is_refused_by_name(hook):
    with pytest.raises(UnknownSignalError, match=r"has no site here"):
        from_transformer_lens(hook)


def test_no_name_of_a_tool_stands_for_two_sites():
    for tool in ("transformer_lens", "interp_engine", "nnterp"):
        names = [name for row in NAMES if (name := getattr(row, tool)) is not None]
        spellings = [spelling for name in names for spelling in (name.name, *name.also)]
        assert len(spellings) == len(set(spellings)), tool


def test_module_output_and_contribution_are_two_sites_with_two_names_in_every_tool_that_has_both():
    rows = {row.site: row for row in NAMES}
    out, added = rows["blocks.L.mlp.out"], rows["blocks.L.mlp_out"]
    assert out.transformer_lens.name.endswith("mlp.hook_out") and added.transformer_lens.name.endswith(".hook_mlp_out")
    assert (out.interp_engine.name, added.interp_engine.name) == ("mlp_out.L", "mlp_out_post.L")
    assert added.nnterp is None


def test_a_trace_answers_to_a_hook_name():
    with llmtrace.open("builtin:induction") as model:
        trace = model.trace("a b a", capture="blocks.*.attn.hook_pattern")
    assert list(trace) == ["blocks.0.attn.pattern", "blocks.1.attn.pattern"]
    assert trace["blocks.1.attn.hook_pattern"] is trace["blocks.1.attn.pattern"]
