"""ALiBi of a Falcon under eager attention: what transformers does wrong is said, and only where it is."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import llmtrace
from llmtrace.testing.tiny import write_tiny

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60]


def notes_and_violations(directory, attention):
    with llmtrace.open(directory, backend="torch", preset="exact", options={"attention": attention}) as model:
        notes = [note for note in model.info.notes if "ALiBi" in note]
        return notes, [error.site for error in model.trace(TOKENS).verify() if error.status == "violated"]


def test_a_falcon_with_alibi_says_under_eager_attention_why_its_patterns_are_violated(tmp_path):
    write_tiny("falcon", tmp_path, alibi=True)
    notes, violated = notes_and_violations(tmp_path, "eager")
    assert violated == [f"blocks.{layer}.attn.pattern" for layer in range(3)]
    assert len(notes) == 1 and "attention=sdpa adds it once" in notes[0]
    assert notes_and_violations(tmp_path, "sdpa") == ([], [])


def test_a_falcon_without_alibi_has_nothing_to_say(tmp_path):
    write_tiny("falcon", tmp_path, alibi=False)
    assert notes_and_violations(tmp_path, "eager") == ([], [])


def test_once_transformers_adds_it_once_nothing_is_said(tmp_path, monkeypatch):
    """Its mask is what is mended here: the bias is taken out of it again before the attention sees it."""
    from transformers.models.falcon.modeling_falcon import FalconDecoderLayer

    real = FalconDecoderLayer.forward

    def mended(self, hidden_states, attention_mask=None, **kwargs):
        least = torch.finfo(attention_mask.dtype).min
        return real(self, hidden_states, attention_mask=torch.where(attention_mask > least / 2, 0.0, least), **kwargs)

    write_tiny("falcon", tmp_path, alibi=True)
    monkeypatch.setattr(FalconDecoderLayer, "forward", mended)
    assert notes_and_violations(tmp_path, "eager") == ([], [])


def test_looking_leaves_no_hook_behind(tmp_path):
    write_tiny("falcon", tmp_path, alibi=True)
    with llmtrace.open(tmp_path, backend="torch", preset="exact") as model:
        assert not any(module._forward_pre_hooks for module in model.session.model.modules())
