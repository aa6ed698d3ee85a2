"""What a comparison finds. **Reference**: the model that is taken as right; **candidate**: the one that is held to it.

**Local error**: how far a candidate's signal is from the reference's equation applied to the candidate's own inputs, with the reference's
weights; **own error**: the same with the candidate's weights; **inherited error**: how far the signal is from the reference's own.
A fault shows locally where it is, and inherited everywhere after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from llmtrace.comparison.budget import Budget
from llmtrace.comparison.by_prompt import PromptErrors, Spread, spread
from llmtrace.comparison.by_token import TokenErrors, TokenNorms, WorstToken
from llmtrace.comparison.flips import Flips
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.mechanisms import Mechanisms
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.tokens import TokenDifference
from llmtrace.trace import ModelInfo, Token

Verdict = Literal["agrees", "within_precision", "diverges"]
"""`agrees`: every site within what rounding explains; `within_precision`: beyond that, only by what coarser weights or signals explain."""
ORDER: tuple[Verdict, ...] = ("agrees", "within_precision", "diverges")
Kind = Literal["code", "weights", "format", "unknown", "reference"]
"""Where a fault is: the candidate's computation; its weights; weights as their format explains; it cannot be told, since the candidate's
weights cannot be read; or the reference's own computation."""


@frozen
class Cause:
    """An explanation that was tried and brings the error back to what rounding explains."""

    name: str
    """Of the hypothesis: `rotary-base`."""
    words: str
    """`rotary base 10,000 instead of 500,000`"""
    before: float
    """The site's relative error under the reference's equation."""
    after: float
    """The same under the hypothesis."""
    harmless: bool = False
    """Whether nothing downstream of it can differ in this run."""


@frozen
class Tried:
    """One hypothesis that was asked about a site."""

    name: str
    """`rotary-base`"""
    count: int
    """How many explanations it had."""
    words: str
    """The one that left least."""
    left: float
    """The site's relative error under it; infinite where it gives nothing that could be compared."""


@frozen
class Divergence:
    """One kind of site that diverges, where it does so first."""

    site: str
    """Its full name."""
    span: tuple[str, ...]
    """The sites between it and the captured inputs that its equation was applied to, itself first: the fault is in one of them."""
    kind: Kind
    """Where the fault is."""
    local_error: float
    """Of the whole signal, relative; infinite where the two cannot be compared."""
    worst_token_error: float
    """The same of the token where it is largest."""
    worst_token: int | None
    """Its index."""
    tolerance: float
    """What rounding explains."""
    own_error: float | None
    """Of the whole signal, with the candidate's own weights; None where they cannot be read."""
    inherited_error: float | None
    """Of the whole signal, from the reference's; None where the reference does not show it."""
    reason: str = ""
    """What a number does not say: unlike masks, a wrong shape, NaN, zeros."""
    layers: tuple[int, ...] = ()
    """The blocks in which this kind of site diverges."""
    prompt: int = 0
    """The prompt in which it does so first."""
    cause: Cause | None = None
    """What explains it; None: unexplained."""
    tried: tuple[Tried, ...] = ()
    """What was tried, what left least first."""
    factor: str = ""
    """A scalar that fits, if one does: `8 = √d_head`."""


@frozen
class SiteError:
    """One site, of all prompts the one where it is worst."""

    site: str
    """Its full name."""
    status: str
    """`holds`, `violated`, `unchecked` or `unavailable`, by the reference's equations and weights."""
    local_error: float
    """Relative, of the whole signal."""
    worst_token_error: float
    """Of the token where it is largest."""
    tolerance: float
    """What rounding explains; the worst token may have twice as much."""
    own_error: float | None = None
    """With the candidate's own weights, where that was asked and can be read."""
    inherited_error: float | None = None
    """From the reference's signal."""
    reason: str = ""
    """What the numbers do not say."""
    prompt: int = 0
    """The prompt in which it is worst, from 0."""
    worst_tokens: tuple[WorstToken, ...] = ()
    """The tokens at which it is furthest off, of all prompts, the worst first."""


@frozen
class Difference:
    """A field in which the two specs say something else."""

    field: str
    """`blocks.*.attn.rotary.theta`"""
    reference: str
    """What the reference's says."""
    candidate: str
    """What the candidate's says."""
    blocks: tuple[int, ...] = ()
    """The blocks in which it differs."""


@frozen
class Nearer:
    """Which side is nearer to the reference's equations in float64."""

    site: str
    """What was compared: the first divergent site, and `logits`."""
    reference: float
    """The reference's relative error."""
    candidate: float
    """The candidate's."""


@frozen(eq=False, repr=False)
class Candidate:
    """One candidate beside the reference."""

    model: ModelInfo
    """Which model, on which runtime, with which settings."""
    verdict: Verdict
    """Of all that was compared."""
    headline: str
    """The verdict in one line."""
    tokens: tuple[TokenDifference, ...] = ()
    """Prompts that its tokenizer reads otherwise."""
    spec: tuple[Difference, ...] = ()
    """What its own files say otherwise."""
    divergences: tuple[Divergence, ...] = ()
    """Every kind of site that diverges, in dataflow order; the first is where a fault entered."""
    sites: tuple[SiteError, ...] = field(default=(), repr=False)
    """Every site, in dataflow order."""
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)
    """Every weight, where both sides' can be read."""
    outputs: tuple[Outputs, ...] = ()
    """How far its predictions are from the reference's, prompt by prompt."""
    by_prompt: tuple[PromptErrors, ...] = ()
    """How far its sites are off, prompt by prompt."""
    by_token: tuple[TokenErrors, ...] = field(default=(), repr=False)
    """Errors of every token, along the stream and of the logits."""
    flips: tuple[Flips, ...] = ()
    """Experts that it chose instead of the reference's, router by router and prompt by prompt, where there are any."""
    nearer: tuple[Nearer, ...] = ()
    """Which side is nearer to float64, where it diverges and the model fits."""
    resolution: float = 0.0
    """The smallest relative change that every site would have shown."""
    names: Mapping[str, str] = field(factory=dict, repr=False)
    """What its runtime calls the sites, where it says so."""
    notes: tuple[str, ...] = ()
    """What a reader should know: what no prompt reached, what could not be compared."""
    tokens_not_compared: str = ""
    """Why no text was read by both tokenizers; empty where one was."""
    shortfall: str = ""
    """Where its predictions stay the same more seldom than was asked for; empty where they do not, or where nothing was asked for."""
    budget: Budget | None = field(default=None, repr=False)
    """What each of its weights costs, where that was asked."""
    mechanisms: Mechanisms | None = field(default=None, repr=False)
    """How it comes to its answers, beside the reference, where that was asked."""

    @property
    def spread(self) -> tuple[Spread, ...]:
        """Mean, deviation and range over prompts, of what `outputs` and `by_prompt` hold."""
        return tuple(spread(self.outputs, self.by_prompt))

    @property
    def first_divergence(self) -> Divergence | None:
        """Where a fault entered; None where it does not diverge."""
        return self.divergences[0] if self.divergences else None

    @property
    def passed(self) -> bool:
        """Whether it does not diverge, and keeps as many predictions as was asked for."""
        return self.verdict != "diverges" and not self.shortfall

    def __repr__(self) -> str:
        """`<Candidate model.gguf: within what Q4_1 explains: 573 sites on 4 prompts>`"""
        return f"<Candidate {self}>"

    def __str__(self) -> str:
        """Its name and the verdict in one line."""
        return f"{self.model.source}: {self.headline}"


@frozen
class RunPrompt:
    """One prompt that was run."""

    name: str
    """Of a built-in one: `prose`; else its number."""
    text: str
    """What was given, in words: a text, or ids."""
    tokens: tuple[Token, ...] = field(default=(), repr=False)
    """As the reference reads it."""


@frozen(eq=False, repr=False)
class Comparison:
    """One model on two or more runtimes, formats or precisions."""

    reference: ModelInfo
    """What is taken as right."""
    prompts: tuple[RunPrompt, ...]
    """What was run."""
    candidates: tuple[Candidate, ...]
    """What was held to it, in the order given."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the reference: equations of its own that it violates."""
    norms: tuple[TokenNorms, ...] = field(default=(), repr=False)
    """How large its stream is, token by token."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the candidates'."""
        return max((each.verdict for each in self.candidates), key=ORDER.index)

    @property
    def first_divergence(self) -> Divergence | None:
        """Of the first candidate that diverges."""
        return next((each.first_divergence for each in self.candidates if each.divergences), None)

    @property
    def passed(self) -> bool:
        """Whether every candidate has: what the exit code says."""
        return all(each.passed for each in self.candidates)

    def __repr__(self) -> str:
        """`<Comparison with checkpoint: model.gguf: agrees: …>`"""
        return f"<Comparison with {self.reference.source}: {'; '.join(map(str, self.candidates))}>"

    def __str__(self) -> str:
        """A line for each candidate: its name and its verdict."""
        return "\n".join(map(str, self.candidates))

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace compare --json` prints."""
        from llmtrace.comparison.document import document

        return document(self)

    def save_html(self, path: str | Path) -> None:
        """Write the report, one self-contained page, atomically. Raises `TraceFileError`, and leaves an older file as it was."""
        from llmtrace.view.comparison import save_comparison_page

        save_comparison_page(path, self.to_json())
