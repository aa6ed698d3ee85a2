"""Asks one backend whether it opens a source, and is not held up by it. **Fault**: what went wrong with the question, in words that
follow the backend's name.
"""

from __future__ import annotations

import threading
from pathlib import Path

from llmtrace.protocol import Fit, TraceBackend

ORDER: tuple[Fit, ...] = ("native", "converting", "reference")
"""Nearest first."""
PATIENCE = 2.0
"""Seconds that a probe may take; one that takes longer counts as no. The conformance kit wants it quicker."""


def answer(
    backend: type[TraceBackend], source: str, path: Path | None, patience: float | None = None
) -> tuple[Fit | None, str]:
    """How near the backend is to the source, and what was wrong with its answer: an exception, another word, or none in time.

    `probe` runs on a thread of its own, which is left behind where it does not end: Python cannot stop it.
    """
    said: list[tuple[object, str]] = []
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            fit = backend.probe(source, path)
            said.append((fit, repr(fit)))
        except BaseException as error:  # a stranger's probe may raise anything; the others still open what they can
            raised.append(error)

    limit = PATIENCE if patience is None else patience
    asking = threading.Thread(target=ask, name=f"probe of {backend.name}", daemon=True)
    asking.start()
    asking.join(limit)
    if raised:
        return None, f"its probe failed: {type(raised[0]).__name__}: {raised[0]}"
    if not said:
        return None, f"its probe gave no answer within {limit:g} s"
    word, shown = said[0]
    fit = next((each for each in ORDER if isinstance(word, str) and each == word), None)
    wrong = fit is None and word is not None
    return fit, f"its probe answered {shown}, which is not {', '.join(ORDER)} or None" if wrong else ""
