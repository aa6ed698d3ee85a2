"""Circuits: which heads do what, and on what evidence.

**Motif**: a recurring dependency pattern, declared in data (`motif`, `reading`, `motifs.toml`); **match**: heads of a model that fulfil
it (`record`); **rung**: how far the evidence for a claim goes (`evidence`). `grammar` names nodes and edges as the field does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtrace.circuits.evidence import Rung
    from llmtrace.circuits.grammar import Edge, Node
    from llmtrace.circuits.motif import Motif
    from llmtrace.circuits.prompts import PromptSet, repeated, texts
    from llmtrace.circuits.reading import built_in, read_motifs
    from llmtrace.circuits.record import HeadMatch, Instance, MotifMatches, Motifs
    from llmtrace.circuits.run import motifs

_HOMES = {
    "Edge": "grammar", "HeadMatch": "record", "Instance": "record", "Motif": "motif", "MotifMatches": "record", "Motifs": "record", "Node": "grammar",
    "PromptSet": "prompts", "Rung": "evidence", "built_in": "reading", "motifs": "run", "read_motifs": "reading", "repeated": "prompts", "texts": "prompts",
}  # fmt: skip
__all__ = [
    "Edge", "HeadMatch", "Instance", "Motif", "MotifMatches", "Motifs", "Node", "PromptSet", "Rung", "built_in", "motifs", "read_motifs",
    "repeated", "texts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llmtrace.circuits' has no attribute {name!r}")
    return getattr(import_module(f"llmtrace.circuits.{_HOMES[name]}"), name)
