"""A number that a file holds in 16 bits is the one that it was rounded from; any other number is what it says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from attrs import evolve

from llmtrace.comparison.alike import rounded_alike
from llmtrace.comparison.specs import differences
from llmtrace.spec import Norm
from tests.specs import model, sequential

HELD = float(np.float16(1e-6))
"""1.01328e-06, as ONNX in float16 holds it."""


@pytest.mark.parametrize(
    ("weights", "reference", "candidate", "same"),
    [
        (("float32", "float16"), 1e-6, HELD, True),
        (("float32", "F16"), 1e-6, HELD, True),
        (("float32", "float16, float32"), 1e-6, HELD, True),
        (("float16", "float32"), HELD, 1e-6, True),
        (("float32", "float32"), 1e-6, HELD, False),
        (("float32", "Q4_0"), 1e-6, HELD, False),
        (("float32", "float16"), 1e-6, 1.1e-6, False),  # no number of float16
        (("float32", "float16"), 1e-6, float(np.float16(2e-6)), False),
        (("float32", "bfloat16"), 1e-5, float(ml_dtypes.bfloat16(1e-5)), True),
        (("float32", "bfloat16"), 10_000.0, 10_016.0, False),
        (("float32", "float16"), 1e30, 65504.0, False),
    ],
)
def test_what_a_16_bit_type_rounds_is_the_same_number(weights, reference, candidate, same):
    assert rounded_alike(*weights)(reference, candidate) is same


def test_a_field_that_a_graph_in_float16_holds_so_is_no_difference():
    spec = evolve(model(sequential()), ln_final=Norm(1e-6))
    other = evolve(spec, ln_final=Norm(HELD))
    assert differences(spec, other, ("float32", "float16")) == []
    assert [each.field for each in differences(spec, other, ("float32", "float32"))] == ["ln_final.eps"]
