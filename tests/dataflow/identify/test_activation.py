"""Activations against torch's and transformers' own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from transformers.activations import ACT2FN

from llmtrace.dataflow.identify import FoundActivation, Unfit, find_activation
from tests.dataflow.identify.pieces import UNITS, of, torch

F = torch.nn.functional

THEIRS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": ACT2FN["quick_gelu"],
    "gelu_10": ACT2FN["gelu_10"],
    "silu": F.silu,
    "relu": F.relu,
    "relu2": ACT2FN["relu2"],
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "mish": F.mish,
    "laplace": ACT2FN["laplace"],
    "identity": torch.clone,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", THEIRS)
def test_each_is_told_from_all_others(name, dtype):
    found = find_activation(of(THEIRS[name], dtype), 48, unit=UNITS[dtype])
    assert isinstance(found, FoundActivation), found
    assert found.act == name
    assert found.runner_up != name


def by_hand(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def tanh_by_hand(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("function", "name"), [(by_hand, "gelu"), (tanh_by_hand, "gelu_tanh")])
def test_a_gelu_of_single_operations_is_found_though_each_rounds(function, name, dtype):
    assert find_activation(of(function, dtype), 7, unit=UNITS[dtype]).act == name


def test_bfloat16_does_not_tell_the_gelus_apart_and_says_so():
    found = find_activation(of(F.gelu, torch.bfloat16), 48, unit=UNITS[torch.bfloat16])
    assert isinstance(found, Unfit)
    assert "gelu" in found.why
    assert "gelu_tanh" in found.why


def nearly_quick(x):
    return x * torch.sigmoid(1.7 * x)


def biased(x):
    return F.gelu(x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype))


def between(x):
    return (F.gelu(x) + F.gelu(x, approximate="tanh")) / 2


@pytest.mark.parametrize(
    "wrong",
    [F.elu, F.selu, nearly_quick, biased, between, lambda x: 2 * F.silu(x), lambda x: F.leaky_relu(x, 0.02)],
)
def test_what_the_schema_has_no_name_for_is_refused(wrong):
    assert isinstance(find_activation(of(wrong), 48), Unfit)


@pytest.mark.parametrize("wrong", [between, F.elu])
def test_so_it_is_in_float16(wrong):
    assert isinstance(find_activation(of(wrong, torch.float16), 48, unit=UNITS[torch.float16]), Unfit)


def test_numbers_that_are_none_are_refused():
    assert isinstance(find_activation(lambda x: np.where(x > 3, np.nan, x), 8), Unfit)


@pytest.mark.parametrize("gain", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "relu", "identity"])
def test_a_power_of_two_that_was_moved_past_the_next_matrix_is_told(name, gain):
    found = find_activation(of(lambda x: gain * THEIRS[name](x), torch.float32), 48, gains=True)
    assert (found.act, found.gain) == (name, gain)


@pytest.mark.parametrize("name", THEIRS)
def test_else_there_is_none(name):
    assert find_activation(of(THEIRS[name], torch.float32), 48, gains=True).gain == 1


class XIELU:
    """transformers' own, with four numbers."""

    def __init__(self, alpha_p, alpha_n, beta, eps):
        activations = pytest.importorskip("transformers.activations")
        self.module = activations.XIELUActivation(alpha_p, alpha_n, beta, eps, dtype=torch.float32)

    def __call__(self, x):
        return self.module._xielu_python(x.float()).to(x.dtype)


@pytest.mark.parametrize("numbers", [(0.8, 0.8, 0.5, -1e-6), (0.3, 1.7, 0.4, -0.1), (2.5, 0.9, 0.7, -0.02)])
def test_xielu_is_told_with_its_numbers(numbers):
    found = find_activation(of(XIELU(*numbers), torch.float32), 48, gains=True)
    assert isinstance(found, FoundActivation), found
    assert found.act == "xielu"
    np.testing.assert_allclose(found.numbers, numbers, rtol=1e-3)


def test_what_is_nearly_xielu_is_refused():
    exact = XIELU(0.8, 0.8, 0.5, -1e-6)
    for wrong in (lambda x: exact(x) + 0.01, lambda x: torch.where(x > 3, x, exact(x)), lambda x: exact(1.01 * x)):
        assert isinstance(find_activation(of(wrong, torch.float32), 48, gains=True), Unfit)


def test_another_factor_is_no_activation():
    assert isinstance(find_activation(of(lambda x: 1.5 * F.gelu(x), torch.float32), 48, gains=True), Unfit)
