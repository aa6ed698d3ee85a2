"""How a test of the kit fails beside its assertions. **Source**: what the author of a kit wrote to convert a tiny model; not the backend."""

from __future__ import annotations

from pathlib import Path
from traceback import walk_tb

from llmtrace.errors import LLMTraceError


class SourceFailed(BaseException):
    """A kit's `source` broke: a fault of the tests, which no gap covers. (A gap covers whatever is an `Exception`.)"""


def place_of(error: BaseException, package: str) -> str:
    """Where in a package an exception came from that is nobody's on purpose: ` (llmtrace_toy/session.py:41)`; empty where nowhere."""
    found = ""
    cause: BaseException | None = error
    while cause is not None:
        on_purpose = isinstance(cause, (LLMTraceError, AssertionError, SourceFailed, NotImplementedError))
        for frame, line in walk_tb(cause.__traceback__) if not on_purpose else ():
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] == package:
                file = Path(frame.f_code.co_filename)
                depth = 1 + module.count(".") + (file.name == "__init__.py")
                found = f" ({Path(*file.parts[-depth:]).as_posix()}:{line})"
        cause = cause.__cause__
    return found
