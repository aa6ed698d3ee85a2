"""All lies."""

from __future__ import annotations

from tests.meta import (
    wrong_backends,
    wrong_delivery,
    wrong_edits,
    wrong_embedded,
    wrong_honesty,
    wrong_replacing,
    wrong_sessions,
    wrong_tokens,
    wrong_values,
)

LIES = [
    lie
    for module in (
        wrong_values,
        wrong_delivery,
        wrong_honesty,
        wrong_edits,
        wrong_replacing,
        wrong_sessions,
        wrong_tokens,
        wrong_embedded,
        wrong_backends,
    )
    for lie in module.LIES
]
