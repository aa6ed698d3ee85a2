"""What an influence method answers. **Source token**: a position of the prompt; **score**: how much the target depends on it.

An influence names its output, the features that it credits, the process, what was held fixed, and the score's unit (the attribution
contract, arXiv 2605.23080).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from llmtrace.influence.standing import Standing
from llmtrace.schema import SCHEMA_VERSION
from llmtrace.schema.sites import Array
from llmtrace.trace import ModelInfo, Token

if TYPE_CHECKING:
    import pandas as pd


@frozen
class Contract:
    """What a score means."""

    output: str
    """What is explained: «logit of the target at the position»."""
    features: str
    """What is credited: «the residual stream at each source position»."""
    process: str
    """How: «contributions of layers multiplied from first to last»."""
    fixed: str
    """What was held constant: «patterns, norm denominators»."""
    unit: str
    """Of one score: «share (rows sum to 1)», «logits»."""


@frozen(eq=False)
class Influence:
    """How strongly one position, or the prediction there, depends on each source token."""

    model: ModelInfo
    """Which model, on which runtime, with which settings."""
    method: str
    """The name that asks for it."""
    contract: Contract
    """What a score means."""
    tokens: tuple[Token, ...]
    """The prompt."""
    position: int
    """Whose prediction; counted from the start."""
    target: Token
    """Whose logit is explained, where the method aims; else the token that was named or is predicted, which enters no score."""
    foil: Token | None
    """Whose logit is subtracted from it; None: nobody's, and always None where the method does not aim."""
    scores: Array
    """One a source token, [token]; exactly 0 after the position."""
    completeness_gap: float | None
    """What the method's identity misses by, relative; None where it claims none, or where it cannot be told (a warning says why)."""
    matrix: Array | None = None
    """The same scores for every position as target, [query key], where the method gives them."""
    parts: tuple[tuple[str, float], ...] = ()
    """What the method credits to no source token: MLPs, biases; in the score's unit."""
    heads: Array | None = None
    """One number a head at the position, [layer head], where the method gives it: its contribution (`dla`), its largest weight on one
    token (`attention`). NaN where a layer has no attention, or fewer heads than another."""
    maps: Array | None = None
    """Scores of each head alone at the position, [layer head key], where the method gives them; NaN as in `heads`."""
    layers: Array | None = None
    """Scores of each layer alone at the position, [layer key], where the method gives them; NaN where a layer has none."""
    table: tuple[HeadScore, ...] = ()
    """Named scores of heads, where the method gives them."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the scores."""
    notes: tuple[tuple[str, float | str], ...] = ()
    """Numbers beside the map: `share of the first position`."""
    predictions: tuple[Token, ...] = field(default=())
    """The predicted token at every position: the target of each row of `matrix`."""
    aims: bool = True
    """Whether the target enters the scores; if not, they explain the position whatever token is predicted."""
    target_standing: Standing | None = None
    """How likely the model finds the target at the position."""
    predicted_standing: Standing | None = None
    """How likely it finds the token that it predicts there."""
    schema_version: int = SCHEMA_VERSION
    """Of the sites that the method read."""

    def to_json(self) -> dict[str, Any]:
        """The document that `llmtrace influence --json` prints: plain lists, numbers, strings, no NaN."""
        from llmtrace.influence.document import influence_document

        return influence_document(self)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a source token: position, id, text, score. Needs pandas."""
        from llmtrace.influence.document import dataframe

        return dataframe(self)

    def save_html(self, path: str | Path) -> None:
        """One page that opens from `file://` with no network. Raises `TraceFileError`; a failure leaves an older file as it was."""
        from llmtrace.view.html import save_page

        save_page(path, [self])

    def _repr_html_(self) -> str:
        """A heat line for notebooks."""
        from llmtrace.view.html import fragment

        return fragment(self)

    def __repr__(self) -> str:
        """Target, method and the strongest sources."""
        from llmtrace.view.text import summary

        return summary(self)


@frozen
class HeadScore:
    """How well one head fits a named behaviour, over the rows where it is defined."""

    name: str
    """Of a built-in motif: `previous-token`, `induction`, `duplicate-token`, `first-token`, `self`, `local-window`."""
    layer: int
    """The block that the head stands in."""
    head: int
    """Its number there."""
    score: float | None
    """Mean attention mass over eligible rows; None where there is no eligible row."""
    rows: int
    """Eligible rows."""
    chance: float | None
    """What uniform attention over the visible keys would give on the same rows."""
