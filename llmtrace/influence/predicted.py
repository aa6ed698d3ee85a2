"""What a model predicts. **Predicted token**: the most likely next one at a position; of equally likely ones, the lowest id."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llmtrace.errors import SchemaViolationError
from llmtrace.influence.standing import Standing, standing
from llmtrace.model import Model
from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array
from llmtrace.tokens import token_of
from llmtrace.trace import Token


class Predicted:
    """A fold that keeps the predicted token of every position, and all logits of one of them."""

    sites: Collection[str] = ("logits",)

    def __init__(self, model: Model, position: int) -> None:
        self._model = model
        self._position = position
        self.tokens: tuple[Token, ...] = ()
        """Of every position, once the pass is over."""
        self._logits: Array = np.zeros(0)

    def layer(self, layer: int, signals: Signals) -> None:
        """Nothing within a layer predicts."""

    def finish(self, ends: Signals) -> None:
        """Raises `SchemaViolationError` for logits that hold NaN or infinity; -inf is a masked token."""
        logits = ends["logits"]
        if (broken := np.isnan(logits).any(-1) | ~np.isfinite(logits.max(-1))).any():
            raise SchemaViolationError(
                f"The logits of {self._model.info.source} hold NaN or infinity from position {int(broken.argmax())} on: the model is "
                "broken. `llmtrace verify` finds where."
            )
        self.tokens = tuple(token_of(int(id), self._model.tokenizer) for id in logits.argmax(-1))
        self._logits = logits[self._position].astype(np.float64)

    def standing(self, token: Token) -> Standing:
        """How likely a token is at the position; call after `finish`."""
        return standing(self._logits, token.id)
