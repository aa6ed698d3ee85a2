"""What the core brings as motifs: a plugin like any other, named by the core's own entry point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrace.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmtrace.circuits.motif import Motif


@hookimpl
def llmtrace_motifs() -> Sequence[Motif]:
    """The built-in motifs."""
    from llmtrace.circuits.reading import built_in

    return list(built_in().values())
