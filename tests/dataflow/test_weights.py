"""Weights that are read out of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.constants import Source
from llmtrace.dataflow.graph import Graph, Vertex
from llmtrace.dataflow.weights import SourcedWeights, stored


def test_weights_are_read_only_and_known_by_the_type_that_the_file_has():
    graph = Graph([Vertex(0, "Transpose", "", ("w",), ("turned",))], ["w"], {}, ["x"])
    array = np.arange(6.0)
    sources = {"a": Source("turned", lambda: array), "b": Source("w", lambda: array, packed="int4")}
    weights = SourcedWeights(sources)
    assert list(weights) == ["a", "b"]
    assert len(weights) == 2
    assert "c" not in weights
    with pytest.raises(ValueError, match="read-only"):
        weights["a"][0] = 1
    assert array.flags.writeable
    assert stored(sources, graph, {"w": "float16"}) == {"a": "float16", "b": "int4"}
