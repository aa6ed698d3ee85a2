"""What is known about the embedded model, and what a backend measures. **Known answer**: a number that follows from how the weights
were set, or from the prompt alone, and that no run is needed for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from llmtrace.data import Demo
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence

METHODS = ("alti", "dla", "attention")
"""What the demo runs and its page shows, in one pass."""

SHARE = "share of the logit from the copied token"
PROBABILITY = "probability of the answer"


@frozen
class Known:
    """One known answer."""

    what: str
    head: str
    """`L1H0`; empty where it speaks of the whole model."""
    behaviour: str
    """The head score that must come to it; for the whole model, `SHARE` or `PROBABILITY`."""
    value: float
    within: float
    """How far a measurement may be off: rotary angles and `SCRATCH` leave a little, and float32 rounds."""

    def met(self, measured: float | None) -> bool:
        """Whether a measurement agrees; none never does."""
        return measured is not None and abs(measured - self.value) <= self.within


def known(demo: Demo, ids: tuple[int, ...]) -> list[Known]:
    """The known answers for the demo's prompt, `ids`, which begins with `<bos>`."""
    from llmtrace.data.roles import CERTAIN

    rows = range(1, len(ids))
    fresh = sum(ids[row] not in ids[:row] for row in rows)
    even = sum(1 / (row + 1) for row in rows) / len(rows)
    return [
        Known("looks at the token before", "L0H0", "previous-token", 1.0, 1e-3),
        Known("looks everywhere equally, so at the token before by chance", "L0H1", "previous-token", even, 1e-4),
        Known("looks at what followed the current token before", "L1H0", "induction", 1.0, 1e-3),
        Known("rests on <bos> in the rows where nothing matches", "L1H0", "first-token", fresh / len(rows), 1e-3),
        Known("shares its look between the current token and its double", "L1H1", "duplicate-token", 0.5, 1e-2),
        Known(f"share of the logit of {demo.answer!r} that comes from position {demo.copied}", "", SHARE, 1.0, 1e-3),
        Known(f"probability of {demo.answer!r} as the next token", "", PROBABILITY, math.exp(-CERTAIN), 1e-4),
    ]


def measured(answers: list[Known], demo: Demo, influences: list[Influence], lens: Lens) -> list[float | None]:
    """The same numbers as a backend's run gives them: from the head scores, direct logit attribution, and the lens's last point."""
    by_method = {each.method: each for each in influences}
    scores: dict[tuple[str, str], float | None] = {
        (f"L{row.layer}H{row.head}", row.name): row.score for row in by_method["attention"].table
    }
    logit = by_method["dla"].scores
    total = float(logit.sum())
    share = float(logit[demo.copied]) / total if total else None
    model = {("", SHARE): share, ("", PROBABILITY): lens.layers[-1].target_probability}
    return [(scores | model).get((each.head, each.behaviour)) for each in answers]
