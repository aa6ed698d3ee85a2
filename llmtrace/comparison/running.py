"""The reference, run prompt by prompt. What it captured is held while there is room (`Recordings`), and else run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from llmtrace.comparison.beside import offered
from llmtrace.comparison.by_token import norms
from llmtrace.comparison.probes import readable
from llmtrace.comparison.recordings import Recordings
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.errors import LimitError
from llmtrace.model import Prompt
from llmtrace.progress import Progress
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.selection import select
from llmtrace.trace import Trace


def runs_of(reference: Side, prompts: Sequence[Prompt], max_bytes: int | None, progress: Progress) -> Iterator[Run]:
    """The reference's signals, prompt by prompt."""
    if reference.trace is not None:
        trace = reference.trace
        signals = {site: np.asarray(trace[site].array) for site in trace.signals if not trace.signals[site].part}
        yield Run(0, tuple(token.id for token in trace.tokens), signals, _precision(trace), norms(0, signals))
        return
    if (model := reference.model) is None:
        return
    sites = offered(model.session, reference.equations)
    every = readable(model, prompts)

    def traced(number: int) -> Trace:
        ids = every[number]
        try:
            return model.trace(ids, capture=select(*sites), max_bytes=max_bytes)
        except LimitError as error:
            raise LimitError(
                f"On prompt {number + 1}, of {len(ids):,} tokens, the reference's signals are larger than the limit of {max_bytes:,} "
                "bytes. Compare on shorter prompts, or raise the limit (max_bytes=, --max-bytes)."
            ) from error

    recordings = Recordings(lambda number: _arrays(traced(number)))

    def ran(number: int) -> Run:  # a function, so that nothing of one prompt is held while the next is run
        trace = traced(number)
        signals = _arrays(trace)
        view = recordings.add(number, signals)
        return Run(number, tuple(every[number]), view, _precision(trace), norms(number, signals))

    for number in range(len(every)):
        progress(f"{reference.name}: prompt {number + 1} of {len(every)}")
        yield ran(number)


def _arrays(trace: Trace) -> dict[str, Array]:
    return {site: signal.array for site, signal in trace.signals.items()}


def _precision(trace: Trace) -> dict[str, Precision]:
    """Of the signals that were captured: those that are derived obey their equations by construction."""
    return {site: each.precision for site, each in trace.signals.items() if each.provenance.kind != "derived"}
