"""Exports and open graphs that several files of tests look at, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import llmtrace
from llmtrace.model import Model

if TYPE_CHECKING:
    import onnx


@pytest.fixture(scope="session")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The path of a graph, by exporter and architecture; its checkpoint lies in `checkpoints/architecture` of the same directory."""
    for needed in ("torch", "transformers", "onnx"):
        pytest.importorskip(needed)
    from tests.backends.onnxruntime.exports import export

    place = tmp_path_factory.mktemp("cells")
    return lambda exporter, architecture: export(exporter, architecture, place)


@pytest.fixture(scope="session")
def open_cell(cell: Callable[[str, str], Path]) -> Iterator[Callable[[str, str], Model]]:
    """An open graph in the preset `exact`, by exporter and architecture."""
    pytest.importorskip("llmtrace_onnxruntime")
    there: dict[tuple[str, str], Model] = {}
    with ExitStack() as stack:

        def opened(exporter: str, architecture: str) -> Model:
            key = (exporter, architecture)
            if key not in there:
                path = str(cell(*key))
                there[key] = stack.enter_context(llmtrace.open(path, backend="onnxruntime", preset="exact"))
            return there[key]

        yield opened


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """The hand-built decoder of `graphs`."""
    from tests.backends.onnxruntime import graphs

    return graphs.decoder()


@pytest.fixture
def single(model: onnx.ModelProto, tmp_path: Path) -> Path:
    """It as one file."""
    from tests.backends.onnxruntime import graphs

    return graphs.save(model, tmp_path / "single" / "model.onnx")


@pytest.fixture
def parted(model: onnx.ModelProto, tmp_path: Path) -> Path:
    """It with its weights in a file beside it."""
    from tests.backends.onnxruntime import graphs

    return graphs.save_external(model, tmp_path / "parted" / "model.onnx")
