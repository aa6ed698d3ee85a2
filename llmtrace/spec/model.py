"""The whole model: the **ends**, from tokens into the stream and from the stream to logits, and the blocks between them."""

from __future__ import annotations

from attrs import field, frozen

from llmtrace.spec.axes import Sizes
from llmtrace.spec.block import Block, Carry
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
class Head:
    """`norm(act(x @ W_in + b_in))`, between the final norm and the unembedding (BERT's prediction head)."""

    act: str
    """A name of `ACTIVATIONS`."""
    bias: bool = False
    """Whether the projection has one."""
    norm: Norm | None = None
    """Of the activation's output."""


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
    vocab: int | None = field(default=None, kw_only=True)
    """How many tokens there are logits for, the first of the vocabulary; None: for each. Some are only read."""

    @property
    def sizes(self) -> Sizes:
        """`vocab`, where it is another than the embedding's."""
        return {} if self.vocab is None else {"vocab": self.vocab}


@frozen
class Sum:
    """A point of the residual stream: `scale` times the sum of what flows into it, first what the stream carries on."""

    scale: float = 1.0
    """Of the sum."""
    carry: Carry = field(default=Carry())
    """What of the first term goes in."""


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
    """From the final norm, or the head after it, to the logits."""
    head: Head | None = None
    """What stands between the final norm and the unembedding, where anything does."""

    @property
    def sizes(self) -> Sizes:
        """`d_model`, `vocab`: the axes that every part may use."""
        return {"d_model": self.d_model, "vocab": self.vocab}

    @property
    def predicted(self) -> int:
        """How many tokens there are logits for."""
        return self.vocab if self.unembed.vocab is None else self.unembed.vocab
