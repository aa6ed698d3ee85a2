"""One row of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from attrs import frozen

from llmtrace.spec import ModelSpec

How = Literal["config", "weights", "code", "converter", "tokenizer"]
Tensors = dict[str, np.ndarray]
"""Of a checkpoint, by the names that it stores them under."""


@frozen
class Fault:
    """What is done, and what must be said."""

    name: str
    """In a few words; unique."""
    base: str
    """The model that it is done to."""
    sites: tuple[str, ...]
    """Where it enters: the first of these that a runtime hands out."""
    words: tuple[str, ...]
    """All of which the cause must contain, in lower case."""
    config: Callable[[dict[str, Any]], None] | None = None
    """Changes `config.json`."""
    tensors: Callable[[Tensors], None] | None = None
    """Changes the stored tensors."""
    code: Callable[[Any], None] | None = None
    early: bool = False
    """The code is other code before the model is opened, since it calls other operators: what it computes is read, and not guessed."""
    """Changes the modules of an open model of transformers, in place."""
    spec: Callable[[ModelSpec], ModelSpec] | None = None
    """What a converter takes the model for that it writes."""
    tokenizer: Callable[[dict[str, Any]], None] | None = None
    """Changes `tokenizer.json`."""
    harmless: bool = False
    """Whether nothing after its site can differ."""

    @property
    def how(self) -> How:
        """How it is planted, for the table."""
        if self.tensors is not None:
            return "weights"
        if self.tokenizer is not None:
            return "tokenizer"
        return "config" if self.config is not None else "code" if self.code is not None else "converter"
