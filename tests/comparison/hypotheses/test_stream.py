"""What may be wrong with a sum of the residual stream, tried on signals of models that have just that fault."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from llmtrace.comparison.case import Case
from llmtrace.comparison.hypotheses.stream import ROWS
from llmtrace.spec import Carry
from tests.specs import SPECS, capture, equations

IDS = (1, 4, 2, 4)


def explained(spec, wrong, site):
    """The explanations that hold of a site, where a model with another spec and the same weights made the signals."""
    right = equations(spec)
    case = Case(site, capture(evolve(right, spec=wrong), IDS), right, None, wrong, 1e-9)
    return [
        words
        for row in ROWS
        if row.about(site)
        for words, predicted in row.tries(case)
        if case.error(predicted)[0] < 1e-9
    ]


@pytest.mark.parametrize("point", ["mid", "post"])
def test_a_stream_that_is_not_multiplied_is_named(point):
    spec = SPECS["carried stream"]
    block = evolve(spec.blocks[0], **{f"carry_{point}": Carry()})
    wrong = evolve(spec, blocks=(block, *spec.blocks[1:]))
    assert explained(spec, wrong, f"blocks.0.resid_{point}") == [
        "what the stream is multiplied by where it goes on is missing"
    ]


def test_a_branch_that_is_not_added_to_a_stream_that_is_multiplied_is_named():
    right = equations(SPECS["carried stream"])
    signals = capture(right, IDS)
    signals["blocks.0.resid_mid"] = signals["blocks.0.resid_mid"] - signals["blocks.0.attn_out"]
    case = Case("blocks.0.resid_mid", signals, right, None, right.spec, 1e-9)
    tried = dict(ROWS[0].tries(case))
    assert np.allclose(tried["blocks.0.attn_out is not added"], case.found)
    assert not [
        words for words in tried if words.startswith("blocks.0.resid_pre")
    ]  # of which it is not known what goes in
