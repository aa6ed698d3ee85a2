"""While a runtime runs, NumPy's products keep to one thread, and have theirs again afterwards."""

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from llmtrace.threads import runtime_has_processors


def threads() -> dict[str, int]:
    """Of each pool for products that lies in NumPy's own folder."""
    return {
        each["filepath"]: each["num_threads"]
        for each in ThreadpoolController().info()
        if each["user_api"] == "blas" and "numpy" in Path(each["filepath"]).parent.name
    }


needs_a_pool = pytest.mark.skipif(not threads(), reason="NumPy has no pool of its own here")


@pytest.fixture
def several():
    """More than one thread, however many the tests were started with."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield


@needs_a_pool
def test_numpy_keeps_to_one_thread_and_gets_the_others_back(several):
    before = threads()
    assert set(before.values()) == {2}
    with runtime_has_processors():
        assert set(threads().values()) == {1}
    assert threads() == before


@needs_a_pool
def test_it_gets_them_back_after_an_error(several):
    with pytest.raises(ZeroDivisionError), runtime_has_processors():
        1 / 0  # noqa: B018
    assert set(threads().values()) == {2}


@needs_a_pool
def test_it_gets_them_back_when_the_last_of_several_runs_ends(several):
    first, second = runtime_has_processors(), runtime_has_processors()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(threads().values()) == {1}
    second.__exit__(None, None, None)
    assert set(threads().values()) == {2}


def test_a_blas_that_may_be_the_runtimes_too_is_left_alone(monkeypatch, tmp_path):
    from llmtrace import threads as module

    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    module._numpy.cache_clear()
    before = threads()
    with runtime_has_processors():
        assert threads() == before
    module._numpy.cache_clear()
