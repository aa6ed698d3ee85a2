"""Checks that observing a model changes nothing. **Probe**: a run of a few tokens, once bare and once with every signal asked for;
where a session runs several prompts at once, a third time with two of them. **Walk**: how far rounding alone may carry the logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from llmtrace.calling import run, run_many
from llmtrace.deriving import Deriving
from llmtrace.errors import SchemaViolationError
from llmtrace.protocol import Request, SupportsMany, SupportsReplay, TraceSession
from llmtrace.recording import Plan
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array
from llmtrace.schema.verify import distance
from llmtrace.selection import Pick, cut
from llmtrace.spec import DynamicNtk, LongRope, ModelSpec

TOKENS = 17
"""Odd, and more than a chunk of 16: what is lost between the chunks of a runtime that runs in such shows."""
WALKS = 4.0
"""How many walks the logits may move when prompts run together, since other shapes take other kernels. Measured at most, in float32:
0.21 in tiny models of 46 families and 0.27 in one of 30 blocks; in bfloat16 0.25 and 1.6."""
NOISES = 4.0
"""How many times what its own tokens move without padding a padded prompt may move, where that is more than a walk."""


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

    The probe also holds the session to the protocol: what it offers comes, once, in order, in shape and type; and where it can run
    several prompts at once, their logits are those of one by one. A branch that it can only replay is given zeros. Raises
    `SchemaViolationError`, `BackendError`.
    """
    equations, info = Equations(session.spec), session.info
    count = min(TOKENS, session.spec.context or TOKENS)
    tokens = tuple(token % session.spec.vocab for token in range(1, 1 + count))
    bare = _probe(session, equations, tokens, ("logits",))
    _compare(
        bare,
        _probe(session, equations, tokens, session.offers),
        info.capture_tolerance,
        f"{info.source} changes when it is observed",
        f"the backend {info.backend} states {info.capture_tolerance:.0e}",
    )
    if isinstance(session, SupportsMany):
        _check_together(session, equations, tokens, bare)


def _check_together(session: TraceSession, equations: Equations, tokens: tuple[int, ...], bare: Array) -> None:
    """Two prompts in one call, the shorter padded: each says what it says alone, and both the same of the tokens that they share.

    Together they are more than a chunk of 16. No token sees those after it, so `bare` says what each gives alone.
    """
    info, few = session.info, 1 + len(tokens) // 4
    prompts = [tokens[:few], tokens[: max(len(tokens) - few, min(few + 1, len(tokens)))]]
    matters = _length_matters(session.spec)
    alone = [_probe(session, equations, each, ("logits",)) if matters else bare[: len(each)] for each in prompts]
    padded, whole = together = _probe_many(session, equations, prompts)
    one = walk(session, equations, len(tokens))
    limit = max(info.capture_tolerance, WALKS * one)
    what = f"{info.source} says something else of a prompt when another runs beside it"
    why = "other kernels explain {:.0e}: the backend " + info.backend + " lets padding leak, or mixes prompts up"
    for expected, found in zip(alone, together, strict=True):
        _compare(expected, found, limit, what, why.format(limit))
    if not matters:
        moved = _moved(whole[:few], bare[:few])
        noise = max(info.capture_tolerance, one, NOISES * moved if math.isfinite(moved) else 0.0)
        _compare(whole[:few], padded, noise, what, why.format(noise))


def walk(session: TraceSession, equations: Equations, tokens: int) -> float:
    """The relative error that rounding alone gives the logits of so many tokens, if the errors of all steps add up as a random walk.

    `√Σ (u_s² + u_o² + K u_a²)` over the steps of the model: the round-offs of storage, operands and accumulation, K the length of the
    sums. It is the local tolerance of `schema.verify` without its margin, with each step's error neither enlarged nor damped.
    """
    total, default = 0.0, session.offers["logits"].precision
    for site, step in equations.steps.items():
        if step.equation.on_request:
            continue
        precision = session.offers[site].precision if site in session.offers else default
        sizes = step.sizes | {"key": tokens}
        terms = math.prod(sizes[axis] for axis in step.equation.sums)
        total += (
            precision.storage_roundoff**2 + precision.operand_roundoff**2 + terms * precision.accumulation_roundoff**2
        )
    return math.sqrt(total)


def _length_matters(spec: ModelSpec) -> bool:
    """Whether a token's rotary angles depend on how long the prompt is."""
    rotaries = [block.attention.rotary for block in spec.blocks if block.attention is not None]
    return any(rotary is not None and isinstance(rotary.scaling, DynamicNtk | LongRope) for rotary in rotaries)


def _compare(alone: Array, other: Array, limit: float, what: str, why: str) -> None:
    moved = _moved(other, alone)
    if moved > limit:
        raise SchemaViolationError(
            f"{what}: its logits move by {moved:.1e} (relative), and {why}. It is refused; check=False opens it all the same."
        )


def _moved(found: Array, expected: Array) -> float:
    """The relative error, infinite where values that are not finite came from nowhere.

    Where the model's own logits hold NaN or infinity, those are its values, whichever run has them: kernels differ in how far one
    spreads, since a masked weight of 0 times NaN is NaN. What is finite in both is compared.
    """
    if np.array_equal(found, expected, equal_nan=True):
        return 0.0
    if np.isfinite(expected).all() or found.shape != expected.shape:
        return distance(found, expected)[0]
    both = np.isfinite(found) & np.isfinite(expected)
    return distance(np.where(both, found, 0), np.where(both, expected, 0))[0]


def _asking(
    session: TraceSession, equations: Equations, tokens: tuple[int, ...], sites: Iterable[str]
) -> tuple[Request, Deriving, _Logits]:
    """What asks for these sites, whole, and looks at the logits."""
    table, logits = equations.steps, _Logits()
    asked = {site: cut(table[site], Pick("**"), len(tokens)) for site in sites}
    dtypes = {site: session.offers[site].dtype for site in asked}
    replayable = session.replayable if isinstance(session, SupportsReplay) else ()
    given = {site: np.zeros(table[site].shape(len(tokens))) for site in replayable if table[site].equation.opaque}
    ready = Plan(
        equations, tokens, asked, {"logits": asked["logits"]}, {}, {}, {}, dtypes, backend=session.info.backend
    )
    return Request(tokens, asked, given), Deriving(ready, logits), logits


def _probe(session: TraceSession, equations: Equations, tokens: tuple[int, ...], sites: Iterable[str]) -> Array:
    """The logits of one run."""
    request, deriving, logits = _asking(session, equations, tokens, sites)
    run(session, request, deriving)
    deriving.finish()
    return logits.array


def _probe_many(session: TraceSession, equations: Equations, prompts: Iterable[tuple[int, ...]]) -> list[Array]:
    """The logits of several prompts in one call, of a session that can."""
    asking = [_asking(session, equations, tokens, ("logits",)) for tokens in prompts]
    if isinstance(session, SupportsMany):
        run_many(session, [request for request, _, _ in asking], [deriving for _, deriving, _ in asking])
    for _, deriving, _ in asking:
        deriving.finish()
    return [logits.array for _, _, logits in asking]
