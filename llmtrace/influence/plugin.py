"""What the core brings as influence methods: a plugin like any other, named by the core's own entry point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtrace.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmtrace.influence.method import Method


@hookimpl
def llmtrace_influence_methods() -> Sequence[Method]:
    """The rows of the built-in methods."""
    from llmtrace.influence.alti import ALTI
    from llmtrace.influence.attention import ATTENTION
    from llmtrace.influence.dla import DLA
    from llmtrace.influence.rollout import ROLLOUT

    return [ALTI, ATTENTION, DLA, ROLLOUT]
