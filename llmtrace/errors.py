"""Every error that LLMTrace raises on purpose. **Culprit**: the thing that is wrong; **fix**: what the reader can do about it.

A message says what, which, why and what to do, in one or two sentences; the command line prints it as it is and exits with 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
"""A name that needs no quotes."""


class LLMTraceError(Exception):
    """The root of the hierarchy: catching it catches every error that LLMTrace raises on purpose."""


class PluginLoadError(LLMTraceError):
    """A plugin could not be imported or registered; the message names its distribution and entry point."""


class DuplicateBackendError(LLMTraceError):
    """Two plugins claim one name, or one suffix of files; the message names both distributions."""


class SchemaVersionError(LLMTraceError):
    """A file or a plugin was written for a schema that this version does not speak."""


class BackendNotFoundError(LLMTraceError):
    """No installed backend has that name, or none can open that source."""


class BackendError(LLMTraceError):
    """A backend raised what it should not have, or returned what it should not; the message names it and the call."""


class PluginError(LLMTraceError):
    """An influence method or a viewer raised what it should not have, or returned what it should not; the message names it, its
    distribution, and what it did."""


class ModelOpenError(LLMTraceError):
    """A model could not be opened: no such file, truncated, not a model, or a model that is refused."""


class UnsupportedModelError(ModelOpenError):
    """The architecture, or a feature of it, is not one that the equations express; the message names it."""


class OptionError(LLMTraceError):
    """An option or argument that does not exist or has an unusable value."""


class UnknownSignalError(LLMTraceError):
    """A site, or a pattern of sites, that this model does not have; the message offers near names."""


class UnknownMethodError(LLMTraceError):
    """An influence method or viewer that no plugin registers; the message offers near names."""


class PromptError(LLMTraceError):
    """A prompt, position or target that cannot be used: empty, over the context, an unknown id, not one token."""


class ChatTemplateError(PromptError):
    """A model's chat template is not there, is broken, does what it may not, or does not take these messages."""


class CircuitError(LLMTraceError):
    """A node, an edge, a motif or a circuit that cannot be read, or that this model cannot have."""


class SignalUnavailableError(LLMTraceError):
    """The site exists but cannot be had here. `gap` is whose it is: *ours*, *upstream* or *impossible*."""

    def __init__(self, message: str, *, gap: str = "ours") -> None:
        super().__init__(message)
        self.gap = gap


class CapabilityError(LLMTraceError):
    """The backend lacks a capability (weights, edits, …) that was asked of it."""


def without_weights(what: str) -> CapabilityError:
    """The error of whoever wants weights that are not there; `what` says who, and what is lacking."""
    return CapabilityError(
        f"{what}: open the model with a backend that has them all (--backend), or use a method that needs none (`llmtrace backends` "
        f"lists both)."
    )


class EditNotSupportedError(CapabilityError):
    """The site cannot be edited here; the message names the site, the backend and one that can."""


class SchemaViolationError(LLMTraceError):
    """A backend handed over something that contradicts the schema, or a model that changes when it is observed."""


class LimitError(LLMTraceError):
    """More bytes than the limit allows; the message gives the number and how to narrow the selection."""


class DumpError(LLMTraceError):
    """Arrays that cannot be taken as a trace: damaged, of other shapes than the model's, under names that are no site of it; or a map of
    names that cannot be read."""


class TraceFileError(LLMTraceError):
    """A saved trace that is truncated, altered or not a trace; or a destination that cannot be written."""


def shown(value: object, most: int = 80) -> str:
    r"""What stands in a file, for a message: a plain name as it is, all else quoted and escaped, on one line, `most` characters at most.

    >>> shown("lm_head.weight"), shown("a\x1b[2J")
    ('lm_head.weight', "'a\\x1b[2J'")
    """
    if isinstance(value, str) and PLAIN.fullmatch(value):
        text = value
    else:
        try:
            text = repr(value)
        except ValueError:  # Python does not write out integers of thousands of digits
            kind = type(value).__name__
            return "an integer of too many digits" if kind == "int" else f"a {kind} that cannot be shown"
    return text if len(text) <= most else text[: most - 1] + "…"


def suggest(name: str, known: Iterable[str]) -> str:
    """A «did you mean» clause to end a message with, or nothing.

    >>> suggest("atti", ["alti", "rollout"])
    ' Did you mean alti?'
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""
