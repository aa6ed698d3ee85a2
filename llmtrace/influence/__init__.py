"""Influence: which source tokens a prediction depends on, by named methods, and the logit lens.

**Method** files hold one method each, a fold over streamed layers and its row; `run` carries them out in one pass; `document` writes them down.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens, Reading
    from llmtrace.influence.method import Answer, InfluenceFold, Method, Task
    from llmtrace.influence.record import Contract, HeadScore, Influence
    from llmtrace.influence.run import influence, lens, picture
    from llmtrace.influence.standing import Standing

_HOMES = {
    "Answer": "method", "Contract": "record", "HeadScore": "record", "Influence": "record", "InfluenceFold": "method", "Lens": "logit_lens",
    "Method": "method", "Reading": "logit_lens", "Standing": "standing", "Task": "method", "influence": "run", "lens": "run", "picture": "run",
}  # fmt: skip
__all__ = [
    "Answer", "Contract", "HeadScore", "Influence", "InfluenceFold", "Lens", "Method", "Reading", "Standing", "Task", "influence", "lens", "picture",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llmtrace.influence' has no attribute {name!r}")
    return getattr(import_module(f"llmtrace.influence.{_HOMES[name]}"), name)
