"""What is known of the embedded model without running it. **Role**: what one head was built to do; **certain**: where the model has seen
what comes next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import frozen

VOCAB = 16
LOGIT_GAIN = 14.0
"""Logit of the predicted token; the others have 0."""
GUESSING = math.log(VOCAB)
"""Loss of 16 equal logits, in nats: in the first copy, and in all of them without L0H0 or L1H0."""
CERTAIN = math.log1p((VOCAB - 1) * math.exp(-LOGIT_GAIN))
"""Loss where one logit is `LOGIT_GAIN` and the others are 0, in nats: a bound from below on that of a token in a later copy, which is
1.4e-5, since SCRATCH takes a little of the norm."""


@frozen
class Role:
    """What one head does, and what is lost without it."""

    layer: int
    head: int
    name: str
    """As the field calls it."""
    attends: str
    needed: bool
    """Whether the predictions need it: without it their loss is `GUESSING` nats."""


ROLES: Mapping[str, Role] = {
    "L0H0": Role(0, 0, "previous-token", "to the position before, and copies its token into PREV", True),
    "L0H1": Role(0, 1, "mean", "to every position equally", False),
    "L1H0": Role(
        1, 0, "induction", "to the positions after earlier occurrences of the current token, else to <bos>", True
    ),
    "L1H1": Role(1, 1, "duplicate-token", "to every position that holds the current token", False),
}
