"""Errors for Model Explorer (github.com/google-ai-edge/model-explorer), in the format of its `GraphNodeData`: a value for each node.

A node is named as the runtime names it where the session says so (a value of an ONNX graph), else by its site. Its value is how many times
what rounding explains the candidate's local error is: up to 1 all is well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtrace.comparison.record import Candidate
from llmtrace.store.atomic import replacing

MOST = 1e9
"""Stands for infinity, which JSON has not."""
COLOURS = ((1.0, "#c8e6c9"), (10.0, "#ffe082"), (MOST, "#ef9a9a"))
"""Up to which value a node has which colour."""


def node_data(candidate: Candidate, names: Mapping[str, str] = {}) -> dict[str, Any]:
    """One candidate's judged sites; `names` are those of the nodes, by site."""
    results = {
        names.get(each.site, each.site): {"value": min(times(each.local_error, each.tolerance), MOST)}
        for each in candidate.sites
        if each.status in ("holds", "violated")
    }
    return {
        "name": f"local error over rounding: {candidate.model.source}",
        "results": results,
        "thresholds": [{"value": value, "bgColor": colour} for value, colour in COLOURS],
    }


def times(error: float, tolerance: float) -> float:
    """How many times what rounding explains an error is.

    >>> times(2e-6, 1e-6), times(0.0, 0.0)
    (2.0, 0.0)
    """
    return error / tolerance if tolerance else MOST if error else 0.0


def write(candidate: Candidate, path: Path) -> None:
    """Write a candidate's errors to a file, which is replaced as a whole. Raises `OSError`."""
    text = json.dumps(node_data(candidate, candidate.names), indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write((text + "\n").encode())
