"""The whole model: the **ends**, from tokens into the stream and from the stream to logits, and the blocks between them."""

from __future__ import annotations

from attrs import frozen

from llmtrace.spec.axes import Sizes
from llmtrace.spec.block import Block
from llmtrace.spec.norm import Norm


@frozen
class Embedding:
    """`norm(scale * W_E[tokens])`."""

    scale: float = 1.0
    """Of the looked-up row."""
    norm: Norm | None = None
    """Of the scaled row."""


@frozen
class Positions:
    """Learned positions; OPT-like tables start at `offset`."""

    length: int
    """Rows of the table."""
    offset: int = 0
    """The row of the first position."""

    @property
    def sizes(self) -> Sizes:
        """`position`."""
        return {"position": self.length}


@frozen
class Unembedding:
    """`softcap(scale * (x @ W_U + b_U))`."""

    scale: float = 1.0
    """Of the logits, before the cap."""
    softcap: float | None = None
    """`cap * tanh(logits / cap)`."""
    bias: bool = False
    """Whether the logits have one."""
    tied: bool = False
    """`W_U` is the embedding, transposed."""


@frozen
class Sum:
    """A point of the residual stream: `scale` times the sum of what flows into it."""

    scale: float = 1.0
    """Of the sum."""


@frozen
class ModelSpec:
    """A decoder-only transformer, from tokens to logits."""

    family: str
    """`model_type` of transformers, or the name that a backend's format gives."""
    d_model: int
    """Width of the residual stream."""
    vocab: int
    """Rows of the embedding."""
    context: int | None
    """The longest prompt the model takes; None where it sets no limit."""
    blocks: tuple[Block, ...]
    """From first to last."""
    ln_final: Norm
    """Of the last `resid_post`."""
    embed: Embedding = Embedding()
    """How tokens enter the stream."""
    positions: Positions | None = None
    """Learned positions, where there are any."""
    unembed: Unembedding = Unembedding()
    """From the final norm to the logits."""

    @property
    def sizes(self) -> Sizes:
        """`d_model`, `vocab`: the axes that every part may use."""
        return {"d_model": self.d_model, "vocab": self.vocab}
