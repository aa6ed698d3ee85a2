"""Weights through others: who is asked first, what is hidden, and that asking reads nothing."""

from __future__ import annotations

import pytest

from llmtrace.comparison.overlaid import Without
from llmtrace.overlaid import Over


class Unread(dict):
    """Weights that may be asked for, but not read."""

    def __getitem__(self, name):
        raise AssertionError(f"{name} was read")


def test_what_is_above_comes_first_and_what_it_lacks_comes_from_below():
    both = Over({"a": 1, "b": 2}, {"b": 3, "c": 4})
    assert dict(both) == {"a": 1, "b": 2, "c": 4}
    assert len(both) == 3


def test_what_is_hidden_is_not_there():
    some = Without({"blocks.1.w": 1, "blocks.10.w": 2, "embed": 3}, ("blocks.1.",))
    assert dict(some) == {"blocks.10.w": 2, "embed": 3}
    assert len(some) == 2
    assert "blocks.1.w" not in some
    with pytest.raises(KeyError):
        some["blocks.1.w"]
    assert dict(Without({"a": 1}, ())) == {"a": 1}


def test_asking_reads_nothing():
    both = Over(Unread(a=1), Without(Unread(b=1, c=1), ("c",)))
    assert [name in both for name in "abc"] == [True, True, False]
    assert list(both) == ["a", "b"]
