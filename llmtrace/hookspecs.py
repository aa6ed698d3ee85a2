"""The hooks that a plugin may implement, through pluggy. **Hook**: a function of a plugin's module that LLMTrace calls by name.

A plugin is a module named by an entry point of the group `llmtrace`; it marks its hooks with `llmtrace.hookimpl`. Hooks return
values and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmtrace.circuits.motif import Motif
    from llmtrace.comparison.case import Hypothesis
    from llmtrace.influence.method import Method
    from llmtrace.protocol import TraceBackend
    from llmtrace.testing.conformance import BackendConformance
    from llmtrace.view.viewer import Viewer

hookspec = pluggy.HookspecMarker("llmtrace")
hookimpl = pluggy.HookimplMarker("llmtrace")
"""Marks a plugin's hooks."""


@hookspec
def llmtrace_backends() -> Sequence[type[TraceBackend]]:  # type: ignore[empty-body]
    """The backends that this plugin brings."""


@hookspec
def llmtrace_influence_methods() -> Sequence[Method]:  # type: ignore[empty-body]
    """The influence methods that this plugin brings."""


@hookspec
def llmtrace_viewers() -> Sequence[type[Viewer]]:  # type: ignore[empty-body]
    """The viewers that this plugin brings."""


@hookspec
def llmtrace_hypotheses() -> Sequence[Hypothesis]:  # type: ignore[empty-body]
    """The explanations of a divergence that this plugin brings; `llmtrace compare` tries them beside its own."""


@hookspec
def llmtrace_motifs() -> Sequence[Motif]:  # type: ignore[empty-body]
    """The motifs that this plugin brings; `llmtrace circuit motifs` looks for them beside the built-in ones."""


@hookspec
def llmtrace_conformance() -> Sequence[type[BackendConformance]]:  # type: ignore[empty-body]
    """The conformance kits that this plugin's backends are held to, where a plain one would not do; imported inside: they need pytest."""
