"""Every error is one of ours, has a reason to exist, and near names are offered where a name is wrong."""

import inspect

import pytest

from llmtrace import errors
from llmtrace.errors import LLMTraceError, SignalUnavailableError, shown, suggest

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


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "blocks.1.attn.W_Q", "a-b/c"])
def test_a_plain_name_is_shown_as_it_is(name):
    assert shown(name) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x\x1b[2J\n", r"'x\x1b[2J\n'"),
        ("\u202eevil", r"'\u202eevil'"),
        ("a b", "'a b'"),
        ("", "''"),
        ("64", "'64'"),
        (["a", 1], "['a', 1]"),
        (1.5, "1.5"),
        ("w" * 200, "w" * 79 + "…"),
        (10**5000, "an integer of too many digits"),
        ([10**5000], "a list that cannot be shown"),
    ],
    ids=[
        "control",
        "bidi",
        "blank",
        "nothing",
        "digits of a text",
        "list",
        "number",
        "long",
        "digits",
        "digits inside",
    ],
)
def test_a_strange_name_is_quoted_escaped_and_cut(value, text):
    assert shown(value) == text
    assert len(shown(value)) <= 80
