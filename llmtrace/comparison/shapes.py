"""A signal of another shape than the reference's: whose sizes they are."""

from __future__ import annotations

from collections.abc import Mapping

from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step

FIELDS: Mapping[str, str] = {
    "head": "heads", "kv_head": "kv_heads", "expert": "experts", "choice": "choices", "position": "positions",
}  # fmt: skip
"""What a spec calls the length of an axis, where it is not called as the axis is."""


def said_by_its_file(reference: Step, candidate: Step | None, found: Array) -> str:
    """The sizes that the candidate's own file gives the site, where the signal has them, in words; empty where it has others."""
    if candidate is None or candidate.axes != reference.axes or not found.ndim:
        return ""
    tokens = found.shape[reference.axes.index("token" if "token" in reference.axes else "query")]
    if candidate.shape(tokens) != found.shape:
        return ""
    unlike = [axis for axis in reference.axes if reference.sizes.get(axis) != candidate.sizes.get(axis)]
    told = [
        f"{FIELDS.get(axis, axis)} {candidate.sizes[axis]:,} instead of {reference.sizes[axis]:,}" for axis in unlike
    ]
    return f"{', '.join(told)}, as its own file says" if told else ""
