"""Pieces that every document is made of. **Document**: plain dictionaries, lists, strings and finite numbers, ready for strict JSON."""

from __future__ import annotations

import math
from typing import Any

from llmtrace.trace import Token


def token_document(token: Token) -> dict[str, Any]:
    """Id and text, and bytes where the text cannot say them.

    >>> token_document(Token(5, " a"))
    {'id': 5, 'text': ' a'}
    """
    plain: dict[str, Any] = {"id": token.id, "text": token.text}
    return plain if token.bytes is None else plain | {"bytes": list(token.bytes)}


def number(value: float | None) -> float | None:
    """A finite Python number, or None.

    >>> number(0.5), number(float("nan"))
    (0.5, None)
    """
    return float(value) if value is not None and math.isfinite(value) else None
