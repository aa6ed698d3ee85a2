"""The quantisation budget: which of a candidate's weights cost its predictions what. **Swap**: one weight of the candidate, dequantised, put
into the reference in place of its own, all else left as it is; what that does to the predictions is the weight's cost.

**KL**: `Σ p_ref (ln p_ref - ln p)` in nats, the reference first, the mean over predictions. Costs do not add up: errors of several weights may
cancel, or make each other worse. So all are swapped at once, too; what is left between that and the candidate itself is its runtime's.
"""

from __future__ import annotations

from attrs import field, frozen


@frozen
class Distance:
    """How far predictions are from those that they are held to."""

    kl: float
    """Mean over predictions, in nats."""
    kl_error: float | None
    """Its standard error, over prompts or chunks, since the predictions of one are not independent; None of a single one."""
    same_top: float
    """Share of predictions whose most likely token is the same, or one that was as likely."""
    log_ppl_ratio: float | None = None
    """On a text, `ln(PPL / PPL of what it is held to)`."""
    log_ppl_ratio_error: float | None = None
    """Its standard error, over chunks."""
    rms_shift: float | None = None
    """On a text, `√mean Δp²`, Δp being by how much the probability of the token that comes next moved."""
    perplexity: float | None = None
    """On a text, `exp` of the mean surprise at the token that comes next."""


@frozen
class Swap:
    """One weight that differs; or several that are one tensor, as a tied embedding."""

    names: tuple[str, ...]
    """By schema name."""
    stored: str
    """The type that the candidate has it in."""
    numbers: int
    """How many it has."""
    bytes: int | None
    """That the candidate stores it in; None for a type that is not known. Of ONNX's integers the scales are not counted."""
    relative_error: float
    """Of the tensor itself: `‖found - expected‖ / ‖expected‖`."""
    distance: Distance
    """Of the reference with this weight from the reference."""
    share: float
    """Of the sum of the KLs of all swaps."""
    cumulative: float
    """Its share with those of all that cost more."""

    @property
    def kl_per_mebibyte(self) -> float | None:
        """Nats for each MiB that it takes: where more bits would buy most."""
        return self.distance.kl / (self.bytes / 2**20) if self.bytes else None


@frozen
class Unswapped:
    """A weight that differs and could not be swapped."""

    names: tuple[str, ...]
    """By schema name."""
    why: str
    """In a sentence."""


@frozen
class Budget:
    """What each weight of one candidate costs."""

    headline: str
    """Where the cost is, in a sentence."""
    predictions: int
    """How many were compared."""
    pieces: int
    """On how many prompts, or chunks of a text."""
    context: int | None
    """Tokens of a chunk, where a text was read; predictions are counted from its middle on."""
    perplexity: float | None
    """Of the reference, on a text."""
    swaps: tuple[Swap, ...] = field(repr=False)
    """The dearest first."""
    total: float
    """The sum of their KLs."""
    together: Distance
    """Of the reference with all of them at once, from the reference."""
    candidate: Distance | None
    """Of the candidate itself, from the reference; None where their logits cannot be compared."""
    runtime: Distance | None
    """Of the candidate from the reference with all of its weights: what its weights do not explain."""
    unswapped: tuple[Unswapped, ...] = ()
    """What is missing from all this."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""

    @property
    def excess(self) -> float:
        """By how much all at once cost more than the sum of their costs, in nats; negative where errors cancel."""
        return self.together.kl - self.total

    @property
    def relative_excess(self) -> float | None:
        """The same as a share of the sum; None where that is 0."""
        return self.excess / self.total if self.total else None

    @property
    def rest(self) -> float | None:
        """The candidate's KL less that of all its weights at once, in nats: what its runtime adds, or takes away."""
        return None if self.candidate is None else self.candidate.kl - self.together.kl
