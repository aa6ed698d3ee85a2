"""Errors token by token, and how large the stream is there. **Strip**: one site on one prompt, every token.

Only the sites along which errors travel have strips: the embeddings, the stream after each block, the logits. A massive activation (one token
whose stream is a hundred times larger) makes its own relative error, and that of the whole signal, look small: hence the norms.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from attrs import frozen

from llmtrace.schema.evaluate import Signals
from llmtrace.schema.sites import Array

WORST = 5
"""Tokens that are kept of each site, of all prompts together."""


@frozen
class WorstToken:
    """One of the tokens at which a site is furthest off."""

    prompt: int
    """Which prompt, from 0."""
    token: int
    """Its index."""
    local_error: float
    """Relative: what this site adds there."""
    inherited_error: float | None
    """From the reference's signal; None where the reference does not show it."""


@frozen
class TokenErrors:
    """A strip: one site on one prompt."""

    site: str
    """`embed`, `blocks.3.resid_post`, `logits`."""
    prompt: int
    """Which prompt, from 0."""
    local_errors: tuple[float, ...]
    """Of every token, relative; none where the site could not be judged."""
    inherited_errors: tuple[float, ...]
    """Of every token; none where the reference does not show the site."""


@frozen
class TokenNorms:
    """How large the reference's stream is, token by token."""

    site: str
    """`embed`, `blocks.3.resid_post`."""
    prompt: int
    """Which prompt, from 0."""
    norms: tuple[float, ...]
    """`‖x‖` of every token."""


def has_strip(site: str) -> bool:
    """Whether errors of every token are kept.

    >>> has_strip("blocks.3.resid_post"), has_strip("blocks.3.mlp.out")
    (True, False)
    """
    return site == "logits" or is_stream(site)


def is_stream(site: str) -> bool:
    """Whether a site is the stream where a block ends, or where the first begins."""
    return site == "embed" or (site.startswith("blocks.") and site.endswith(".resid_post"))


def strip(site: str, prompt: int, local: Array | None, inherited: Array | None) -> TokenErrors:
    """The strip of one site from the errors of its tokens [token]; None where there are none."""
    return TokenErrors(site, prompt, *(() if x is None else tuple(map(float, x)) for x in (local, inherited)))


def worst_tokens(prompt: int, local: Array | None, inherited: Array | None) -> tuple[WorstToken, ...]:
    """The tokens that are furthest off locally, the worst first; where nothing is, those that inherit most."""
    if local is None or not local.size:
        return ()
    theirs = np.zeros_like(local) if inherited is None else inherited
    order = np.lexsort((np.arange(len(local)), -theirs, -local))[:WORST]
    found = (
        WorstToken(prompt, int(at), float(local[at]), None if inherited is None else float(inherited[at]))
        for at in order
    )
    return tuple(each for each in found if each.local_error or each.inherited_error)


def worst_of_all(found: Iterable[WorstToken]) -> tuple[WorstToken, ...]:
    """Of several prompts, the worst."""
    ranked = sorted(
        found, key=lambda each: (-each.local_error, -(each.inherited_error or 0.0), each.prompt, each.token)
    )
    return tuple(ranked[:WORST])


def norms(prompt: int, signals: Signals) -> tuple[TokenNorms, ...]:
    """Of the reference's stream on one prompt, in the order of the signals."""
    sizes = {
        site: np.linalg.norm(np.asarray(x, dtype=np.float64), axis=-1) for site, x in signals.items() if is_stream(site)
    }
    return tuple(TokenNorms(site, prompt, tuple(map(float, each))) for site, each in sizes.items())
