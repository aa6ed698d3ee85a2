"""Scalar functions against PyTorch's, and their edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.schema.functions import ACTIVATIONS, affine, erf, log_softmax, plus, sigmoid, softcap, softmax

torch = pytest.importorskip("torch")
F = torch.nn.functional
PEERS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: F.softplus(x, threshold=1e3),
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
X = np.concatenate([np.linspace(-40, 40, 801), [0.0, -0.0, 1e-300, -700.0, 700.0]])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_transformers_own(name):
    from transformers.activations import ACT2FN

    theirs = {"identity": "linear", "gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)
    expected = (PEERS.get(name) or ACT2FN[theirs])(torch.from_numpy(X)).numpy()
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(ACTIVATIONS[name](X), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_keeps_the_type_of_its_input(name):
    assert ACTIVATIONS[name](X.astype(np.float32)).dtype == np.float32


@pytest.mark.filterwarnings("error")
def test_a_sigmoid_neither_overflows_nor_loses_its_small_values():
    with np.errstate(under="ignore"):
        found = sigmoid(np.array([-700.0, -40.0, 0.0, 40.0, 700.0]))
    expected = [math.exp(-700), math.exp(-40) / (1 + math.exp(-40)), 0.5, 1 / (1 + math.exp(-40)), 1.0]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(-1e3, 1e3))
def test_softmax_sums_to_one_and_ignores_a_constant(row, shift):
    x = np.array(row)
    assert softmax(x).sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(softmax(x + shift), softmax(x), rtol=1e-9, atol=1e-300)


def test_softmax_is_pytorchs_and_gives_masked_entries_nothing():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)) * 30
    x[..., -1] = -np.inf
    np.testing.assert_allclose(softmax(x), torch.softmax(torch.from_numpy(x), -1).numpy(), rtol=1e-13)
    assert not softmax(x)[..., -1].any()


def test_a_softcap_bounds_and_is_the_identity_near_nothing():
    x = np.array([-1e6, -1e-6, 0.0, 1e-6, 1e6])
    np.testing.assert_allclose(softcap(x, 5.0), [-5, -1e-6, 0, 1e-6, 5], rtol=1e-12)
    assert softcap(x, None) is x


def test_erf_is_the_error_function():
    np.testing.assert_allclose(erf(X), [math.erf(x) for x in X], rtol=0, atol=0)


def test_absent_weights_change_nothing():
    x = np.arange(3.0)
    assert plus(x, None) is x
    assert affine(x, None, None) is x
    np.testing.assert_array_equal(affine(x, np.array([1, 2, 3]), np.ones(3)), [1, 3, 7])


def test_log_softmax_is_pytorchs_in_float64_whatever_comes_in():
    logits = np.stack([X, X[::-1]]).astype(np.float32)
    wanted = torch.from_numpy(logits.astype(np.float64)).log_softmax(-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), wanted, rtol=1e-12, atol=1e-12)
    assert log_softmax(logits[0]).dtype == np.float64
