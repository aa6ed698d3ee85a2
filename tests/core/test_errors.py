"""Every error is one of ours, has a reason to exist, and near names are offered where a name is wrong."""

import inspect

import pytest

from llmtrace import errors
from llmtrace.errors import LLMTraceError, SignalUnavailableError, suggest

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == "llmtrace.errors"]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_caught_by_the_root_and_says_what_it_is_for(kind):
    assert issubclass(kind, LLMTraceError)
    assert kind.__doc__.strip()
    assert str(kind("what, which, why")) == "what, which, why"


def test_a_model_that_is_not_supported_is_one_that_cannot_be_opened():
    assert issubclass(errors.UnsupportedModelError, errors.ModelOpenError)


@pytest.mark.parametrize("gap", ["ours", "upstream", "impossible"])
def test_an_unavailable_signal_says_whose_gap_it_is(gap):
    assert SignalUnavailableError("x", gap=gap).gap == gap


def test_near_names_are_offered_nearest_first_and_nothing_far():
    assert suggest("attn.patern", ["attn.pattern", "mlp.post"]) == " Did you mean attn.pattern?"
    assert suggest("zzzz", ["attn.pattern"]) == ""
    assert suggest("rot", ["rot_q", "rot_k", "z"]).startswith(" Did you mean rot_")
