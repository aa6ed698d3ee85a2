"""What a session lends to the core: operators of its runtime's that stand in for NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.model import Model
from llmtrace.protocol import SupportsArithmetic
from llmtrace.schema.arithmetic import NUMPY, Arithmetic
from llmtrace.schema.sites import Array
from llmtrace.testing.kit.base import Kit

NEAR = {"float32": 1e-4, "float64": 1e-12}
"""How far sums in another order may lie apart."""


class LendingKit(Kit):
    """`arithmetic`."""

    def test_lent_operators_compute_what_numpys_do(self, model: Model) -> None:
        """Where a session has an `arithmetic`, each of its operators gives what its formula says, in both types, into memory of any strides, and
        writes nowhere else."""
        if not isinstance(model.session, SupportsArithmetic):
            pytest.skip("the session lends no operators")
        lent = model.session.arithmetic
        assert lent.block > 0, f"its block is {lent.block}: how many numbers is it to work on at once?"
        for dtype, near in NEAR.items():
            for with_sinks in (False, True):
                for name, found, expected in zip(
                    ("product", "pattern", "sink", "distances"),
                    _worked(lent, dtype, with_sinks),
                    _worked(NUMPY, dtype, with_sinks),
                    strict=True,
                ):
                    np.testing.assert_allclose(
                        found, expected, near, near, err_msg=f"{name} of {dtype}{', with sinks' * with_sinks}"
                    )


def _worked(arithmetic: Arithmetic, dtype: str, with_sinks: bool) -> list[Array]:
    """One attention, and the distances that ALTI takes."""
    random = np.random.default_rng(0)
    q, k, y = (random.normal(size=shape).astype(dtype) for shape in ((3, 8, 16), (3, 12, 16), (8, 12)))
    q.flags.writeable = False  # as what a run hands over is
    product = np.empty((3, 8, 12), dtype)
    assert arithmetic.matmul(q, k.swapaxes(1, 2), product) is product, (
        "a product is returned where it was to be written"
    )
    scores = product.copy()
    scores[..., 9:] = -np.inf
    pattern, sink = np.full((3, 9, 30), 7, dtype), np.full((3, 9), 7, dtype)
    sinks = random.normal(size=(3, 1, 1)).astype(dtype) if with_sinks else None
    arithmetic.softmax(scores, sinks, pattern[:, 1:, 4:16], sink[:, 1:] if with_sinks else None)
    return [product, pattern, sink, arithmetic.distances(product.copy(), y)]
