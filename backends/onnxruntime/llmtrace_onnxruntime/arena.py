"""One arena for all sessions. **Arena**: memory that ONNX Runtime keeps for later runs; by default each session has one of its own, which holds
what its largest run took for as long as the session lives.
"""

from __future__ import annotations

from functools import lru_cache

import onnxruntime

AS_ASKED = 1
"""ONNX Runtime's `kSameAsRequested`: an arena grows by what is asked for, and not to the next power of two."""


@lru_cache(maxsize=1)
def share() -> bool:
    """Make the process's arena; whether sessions can use it."""
    try:
        place = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        settings = onnxruntime.OrtArenaCfg({"max_mem": 0, "arena_extend_strategy": AS_ASKED})
        onnxruntime.create_and_register_allocator(place, settings)
    except Exception:  # the runtime raises a dozen kinds, all direct children of it: each session then has its own
        return False
    return True
