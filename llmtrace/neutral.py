"""Checks that observing a model changes nothing. **Probe**: a run of a few tokens, once bare and once with every signal asked for."""

from __future__ import annotations

import numpy as np

from llmtrace.errors import SchemaViolationError
from llmtrace.protocol import Request, SupportsReplay, TraceSession
from llmtrace.recording import Deriving, Plan
from llmtrace.schema.evaluate import Equations, Signals
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.selection import Cut, Pick, cut

TOKENS = 3


class _Logits:
    """Keeps the logits and looks at nothing else."""

    def __init__(self) -> None:
        self.array: Array = np.zeros(0)

    def signal(self, site: str, array: Array) -> None:
        if site == "logits":
            self.array = np.array(array)

    def layer_done(self, layer: int) -> None:
        """Nothing to do."""


def check_neutral(session: TraceSession) -> None:
    """Refuse a session whose logits move when signals are asked for, beyond the tolerance that it states.

    The probe also holds the session to the protocol: what it offers comes, once, in order, in shape and type. A branch that it can
    only replay is given zeros. Raises `SchemaViolationError`.
    """
    equations = Equations(session.spec)
    spec, table, info = session.spec, equations.steps, session.info
    if foreign := [site for site in session.offers if site not in table]:
        raise SchemaViolationError(
            f"The backend {info.backend} offers {foreign[0]}, which is no site of {info.source}."
        )
    if "logits" not in session.offers:
        raise SchemaViolationError(
            f"The backend {info.backend} does not offer the logits of {info.source}: it cannot be checked."
        )
    tokens = tuple(token % spec.vocab for token in range(1, 1 + min(TOKENS, spec.context or TOKENS)))
    everything = {site: cut(table[site], Pick("**"), len(tokens)) for site in session.offers}
    replayable = session.replayable if isinstance(session, SupportsReplay) else ()
    given = {site: np.zeros(table[site].shape(len(tokens))) for site in replayable if table[site].equation.opaque}
    bare = _probe(session, equations, tokens, {"logits": everything["logits"]}, given)
    observed = _probe(session, equations, tokens, everything, given)
    if np.array_equal(bare, observed, equal_nan=True):
        return
    moved = distance(observed, bare)[0]
    if moved > info.capture_tolerance:
        raise SchemaViolationError(
            f"{info.source} changes when it is observed: its logits move by {moved:.1e} (relative), and the backend {info.backend} "
            f"states {info.capture_tolerance:.0e}. It is refused; check=False opens it all the same."
        )


def _probe(
    session: TraceSession, equations: Equations, tokens: tuple[int, ...], asked: dict[str, Cut], given: Signals
) -> Array:
    """The logits of one run."""
    precision = {site: session.offers[site].precision for site in asked}
    logits = _Logits()
    deriving = Deriving(Plan(equations, tokens, asked, {"logits": asked["logits"]}, {}, {}, precision), logits)
    session.run(Request(tokens, asked, given), deriving)
    deriving.finish()
    return logits.array
