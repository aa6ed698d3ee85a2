"""One candidate on each prompt, and how far the prompts differ. **Spread**: of one quantity over prompts, each of which counts once.

What predictions come to is in `Outputs`; here is what the sites come to. The standard error says how well the mean is known if the prompts
are a sample of what the model will be asked; a few built-in ones are not, so look at the least and the most.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from llmtrace.schema.steps import layer_of

if TYPE_CHECKING:
    from llmtrace.comparison.outputs import Outputs
    from llmtrace.comparison.record import SiteError


@frozen
class PromptErrors:
    """One prompt: where the candidate itself is furthest off, and what the stream has gathered by its last block."""

    prompt: int
    """Which one, from 0."""
    site: str
    """Where the local error is largest beside what rounding explains; empty where nothing could be judged."""
    local_error: float
    """There, of the whole signal, relative."""
    tolerance: float
    """What rounding explains there."""
    times: float
    """The one over the other: above 1 it is more than rounding."""
    inherited_error: float | None
    """From the reference's stream after the last block; None where it does not show it."""


@frozen
class Spread:
    """One quantity over prompts."""

    quantity: str
    """`mean_kld`, `worst_kld`, `same_top` or `largest_shift` of `Outputs`; `times` or `inherited_error` of `PromptErrors`."""
    prompts: int
    """How many it was found on."""
    mean: float
    """Of these."""
    deviation: float | None
    """Standard deviation of one prompt (n - 1); None of a single one."""
    standard_error: float | None
    """Of the mean: the deviation over √n; None of a single prompt."""
    least: float
    """The smallest."""
    most: float
    """The largest."""


def prompt_errors(prompt: int, found: Mapping[str, SiteError]) -> PromptErrors:
    """One prompt's from what became of its sites."""
    judged = [each for each in found.values() if each.status in ("holds", "violated")]
    worst = max(judged, key=lambda each: _times(each.local_error, each.tolerance), default=None)
    last = max((site for site in found if site.endswith(".resid_post")), key=_layer, default=None)
    inherited = None if last is None else found[last].inherited_error
    if worst is None:
        return PromptErrors(prompt, "", 0.0, 0.0, 0.0, inherited)
    times = _times(worst.local_error, worst.tolerance)
    return PromptErrors(prompt, worst.site, worst.local_error, worst.tolerance, times, inherited)


def spread(outputs: Sequence[Outputs], prompts: Sequence[PromptErrors]) -> Iterator[Spread]:
    """Of every quantity that was found on any prompt."""
    for quantity in ("mean_kld", "worst_kld", "same_top", "largest_shift"):
        yield from _of(quantity, [getattr(each, quantity) for each in outputs])
    yield from _of("times", [each.times for each in prompts if each.site])
    yield from _of("inherited_error", [each.inherited_error for each in prompts if each.inherited_error is not None])


def _of(quantity: str, values: Sequence[float]) -> Iterator[Spread]:
    if not values:
        return
    n, finite = len(values), all(map(math.isfinite, values))
    deviation = None if n == 1 else statistics.stdev(values) if finite else math.inf
    error = None if deviation is None else deviation / math.sqrt(n)
    mean = math.fsum(values) / n if finite else math.inf
    yield Spread(quantity, n, mean, deviation, error, min(values), max(values))


def _times(error: float, tolerance: float) -> float:
    return error / tolerance if tolerance else math.inf if error else 0.0


def _layer(site: str) -> int:
    layer = layer_of(site)
    return -1 if layer is None else layer
