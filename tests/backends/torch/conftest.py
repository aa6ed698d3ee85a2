"""Tiny seeded checkpoints, written once a session, and sessions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers

import llmtrace
from llmtrace.model import Model
from llmtrace.testing.tiny import TINY, write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny checkpoint, by family."""
    there: dict[str, Path] = {}

    def write(family: str) -> Path:
        assert family in TINY, family
        if family not in there:
            there[family] = tmp_path_factory.mktemp(family)
            write_tiny(family, there[family])
        return there[family]

    return write


@pytest.fixture
def opened(tiny: Callable[[str], Path]) -> Iterator[Callable[..., Model]]:
    """Opens a tiny model with the PyTorch backend; closed at the end of the test."""
    with ExitStack() as stack:

        def open(family: str, preset: str = "exact", **options: Any) -> Model:
            return stack.enter_context(llmtrace.open(tiny(family), backend="torch", preset=preset, options=options))

        yield open


@pytest.fixture
def bare(tiny: Callable[[str], Path]) -> Callable[..., Any]:
    """The same checkpoint, opened by transformers alone."""

    def load(family: str, attention: str = "eager", dtype: str = "float32") -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(
            tiny(family), attn_implementation=attention, dtype=dtype
        ).eval()

    return load
