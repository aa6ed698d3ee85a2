"""The page of the conformance kit: every test, and what it holds a backend to."""

from __future__ import annotations

from llmtrace.testing.conformance import BackendConformance, tests
from llmtrace.testing.model import FAMILIES
from table import NOTICE, code, table

INTRO = """# The conformance kit

What a backend is held to: by its own tests, which are a subclass of `llmtrace.testing.BackendConformance`
([how](../plugins.md#how-to-know-that-it-is-right)), and by `llmtrace check-backend NAME`, for a backend that is installed. `--test`
takes a part of a name. A test of an ability (`edits`, `many`, `replay`, `weights`) is left out where the backend does not claim it; what
a backend cannot pass it declares, as a gap with its kind and its reason, and a gap whose test passes is a failure.

"""
MODELS = """## The models

Tiny ones, made from a seed with NumPy alone. A test that depends on the model runs on each.

"""


def page() -> str:
    """The whole page."""
    text = (
        NOTICE
        + INTRO
        + MODELS
        + table(("family", "what of it is new"), [(code(name), words) for name, words in FAMILIES.items()])
    )
    known = tests()
    for kind in (kit for kit in BackendConformance.__mro__ if any(name.startswith("test_") for name in vars(kit))):
        title = " ".join((kind.__doc__ or "").split()).rstrip(".")
        rows = [(code(name), known[name]) for name in vars(kind) if name.startswith("test_")]
        text += f"## {title}\n\n" + table(("test", "law"), rows)
    return text.rstrip() + "\n"
