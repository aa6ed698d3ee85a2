"""What llama.cpp says while it works, as records of the logger `llmtrace.llamacpp`, which is silent until somebody listens.

**Last words**: the last warnings and errors that the library uttered in this thread; they are precise, and stand in our error messages.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from llmtrace_llamacpp.abi import LOG, Api

LOGGER = logging.getLogger("llmtrace.llamacpp")
LOGGER.addHandler(logging.NullHandler())

LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
"""ggml's levels to ours; its "info" is chatter about each tensor, but that is its name for it."""
CONTINUED = 5
"""The level of a text that goes on with the line before."""
MOST = 8
"""Lines kept."""


class _Said(threading.local):
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MOST)
        self.level = logging.NOTSET


_said = _Said()


def _hear(level: int, text: bytes | None, _: Any) -> None:
    """One piece of text from the library. Nothing may be raised into C."""
    try:
        line = (text or b"").decode("utf-8", "replace").rstrip("\n")
        if level != CONTINUED:
            _said.level = LEVELS.get(level, logging.DEBUG)
        if not line.strip(" ."):
            return  # the dots of a progress bar
        if _said.level >= logging.WARNING:
            if level == CONTINUED and _said.lines:
                _said.lines[-1] += line
            else:
                _said.lines.append(line)
        LOGGER.log(_said.level, "%s", line)
    except Exception:  # noqa: S110  # a handler of the user's raised, or the interpreter is shutting down
        pass


HEAR = LOG(_hear)
"""Kept as long as the module: the library holds its address."""


def listen(api: Api) -> None:
    """Send the library's messages here instead of to standard error."""
    api.llama_log_set(HEAR, None)


def forget() -> None:
    """Begin anew, before a call whose failure is to be explained."""
    _said.lines.clear()


def last_words() -> str:
    """The warnings and errors of this thread since `forget`, on one line, or a remark that there were none."""
    return "; ".join(line.strip() for line in _said.lines) or "it does not say why"
