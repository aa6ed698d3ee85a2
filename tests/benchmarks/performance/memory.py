"""The most memory that something takes, over what was taken before it began."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def most(run: Callable[[], object]) -> int:
    """Bytes, of resident memory, while `run` runs and what it returns is held. Only Linux says; -1 elsewhere."""
    if not STATUS.exists():
        return -1
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and not given back would be used again, and not be seen
    before = _said("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    held = run()
    found = _said("VmHWM") - before
    del held
    return found


def _said(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
