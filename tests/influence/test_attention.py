"""Raw attention against the patterns that transformers' modules show."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.influence import influence


def test_it_is_the_mean_over_layers_and_heads_of_what_transformers_shows(family, tiny, tokens):
    model, watched = tiny(family)
    (found,) = influence(model, tokens, ("attention",), position=7)
    patterns = np.stack([block.pattern for block in watched.blocks])
    assert np.abs(found.matrix - patterns.mean((0, 1))).max() < 1e-6
    assert np.abs(found.scores - patterns[:, :, 7].mean((0, 1))).max() < 1e-6
    assert np.abs(found.layers - patterns[:, :, 7].mean(1)).max() < 1e-6
    assert np.abs(found.maps - patterns[:, :, 7]).max() < 1e-6
    assert np.abs(found.heads - patterns[:, :, 7].max(-1)).max() < 1e-6
    assert found.completeness_gap is None


def test_what_sinks_took_is_said(tiny, tokens):
    model, watched = tiny("gpt_oss")
    (found,) = influence(model, tokens, ("attention",))
    share = dict(found.notes)["share of attention sinks"]
    assert share == pytest.approx(
        1 - np.mean([block.pattern[:, -1].sum(-1).mean() for block in watched.blocks]), abs=1e-6
    )
    assert share > 0.01
