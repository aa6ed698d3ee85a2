"""Norms against PyTorch's layer_norm and rms_norm."""

import numpy as np
import pytest

from llmtrace.schema import norm
from llmtrace.spec import Norm

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)


def both(n, x, w, b, width):
    x, w, b = (None if array is None else torch.from_numpy(array) for array in (x, w, b))
    if n.centred:
        return torch.nn.functional.layer_norm(x, width, w, b, n.eps).numpy()
    return torch.nn.functional.rms_norm(x, width, w, n.eps).numpy()


@pytest.mark.parametrize("n", [Norm(1e-5), Norm(0.3), Norm(1e-5, centred=True, bias=True), Norm(0.2, centred=True)])
def test_a_norm_is_pytorchs(n):
    x, w, b = RNG.normal(size=(5, 12)) + 1, RNG.normal(size=12), RNG.normal(size=12)
    b = b if n.bias else None
    np.testing.assert_allclose(norm.apply(n, x, w, b), both(n, x, w, b, (12,)), rtol=1e-12, atol=1e-14)


def test_a_norm_of_the_whole_width_runs_over_heads_and_channels():
    n = Norm(1e-5, over="head d_head")
    x, w = RNG.normal(size=(5, 4, 6)), RNG.normal(size=(4, 6))
    np.testing.assert_allclose(norm.apply(n, x, w), both(n, x, w, None, (4, 6)), rtol=1e-12)
    assert norm.scale(n, x).shape == (5, 1, 1)


def test_a_norm_per_head_runs_over_channels_only():
    n = Norm(1e-5, over="d_head")
    x, w = RNG.normal(size=(5, 4, 6)), RNG.normal(size=6)
    np.testing.assert_allclose(norm.apply(n, x, w), both(n, x, w, None, (6,)), rtol=1e-12)


def test_scale_times_normalized_is_what_was_read():
    x = RNG.normal(size=(5, 12)) + 3
    plain, centred = Norm(1e-5), Norm(1e-5, centred=True)
    np.testing.assert_allclose(norm.scale(plain, x) * norm.normalized(plain, x, norm.scale(plain, x)), x, rtol=1e-12)
    np.testing.assert_allclose(
        norm.scale(centred, x) * norm.normalized(centred, x, norm.scale(centred, x)),
        x - x.mean(-1, keepdims=True),
        rtol=1e-12,
    )
