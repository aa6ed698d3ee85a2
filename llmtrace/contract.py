"""Holds a session to what it says of itself, before anything is run. **Contract**: its spec, offers, gaps, weights and abilities fit
each other and the schema. Names only: no weight is read, and what only a run can show, `neutral` and `recording` check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

from llmtrace.calling import calling
from llmtrace.errors import BackendError, SchemaViolationError, suggest
from llmtrace.protocol import (
    Gap,
    GapKind,
    Offer,
    SupportsEdits,
    SupportsKeeping,
    SupportsMany,
    SupportsReplacement,
    SupportsReplay,
    SupportsWeights,
    TraceBackend,
    TraceSession,
)
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sound import sound
from llmtrace.schema.steps import Step, needed
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer
from llmtrace.trace import ModelInfo

ABILITIES: dict[str, type[Any]] = {
    "weights": SupportsWeights,
    "replay": SupportsReplay,
    "many": SupportsMany,
    "edits": SupportsEdits,
    "replacement": SupportsReplacement,
}
"""What a backend may claim in `capabilities`, and the protocol that its sessions then follow."""
MEMBERS: dict[str, type[Any]] = {"info": ModelInfo, "spec": ModelSpec, "offers": Mapping, "gaps": Mapping}
"""What every session has, beside a tokenizer or None."""


def check_contract(session: TraceSession, backend: type[TraceBackend]) -> None:
    """Hold a session that `backend` opened to its contract.

    Raises `SchemaViolationError`, which names the backend, the site or weight, and what is wrong; `ModelOpenError` for a spec that
    contradicts itself; `BackendError` for something that is no session.
    """
    name = backend.name
    with calling(name, "open, which returned a session whose members cannot be looked at"):
        _check_members(session, name)
        if session.info.backend != name:
            raise SchemaViolationError(
                f"The backend {name} says of {session.info.source} that {session.info.backend!r} opened it."
            )
        table = Equations(sound(session.spec, f"The backend {name}")).steps
        _check_sites(session, name, table)
        _check_abilities(session, backend)
        if isinstance(session, SupportsReplay):
            _check_names(
                f"The backend {name} can replay", session.replayable, table, f"is no site of {session.info.source}"
            )
        if isinstance(session, SupportsEdits):
            _check_names(
                f"The backend {name} can edit", session.editable, table, f"is no site of {session.info.source}"
            )
        if isinstance(session, SupportsKeeping):
            _check_names(
                f"The backend {name} says that arrays last of", session.lasting, session.offers, "it does not offer"
            )
        if isinstance(session, SupportsWeights):
            known = {weight.name for weight, _ in needed(session.spec)}
            unread = f"no equation of {session.info.source} reads"
            _check_names(f"The backend {name} has the weight", session.weights, known, unread)
            _check_names(f"The backend {name} says how it stores the weight", session.stored, known, unread)


def _check_members(session: object, name: str) -> None:
    if session is None:
        raise BackendError(
            f"The backend {name} failed in open: it returned None instead of a session. Report it to its author."
        )
    for member, kind in MEMBERS.items():
        if not isinstance(getattr(session, member, None), kind):
            shown = type(getattr(session, member, None)).__name__
            raise SchemaViolationError(
                f"The session of the backend {name} has `{member}` of type {shown} instead of {kind.__name__}."
            )
    tokenizer = getattr(session, "tokenizer", session)
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise SchemaViolationError(
            f"The session of the backend {name} has a `tokenizer` that is no Tokenizer (encode, token) and not None."
        )
    for method in ("run", "close"):
        if not callable(getattr(session, method, None)):
            raise SchemaViolationError(f"The session of the backend {name} has no `{method}`.")


def _check_sites(session: TraceSession, name: str, table: Mapping[str, Step]) -> None:
    unknown = f"is no site of {session.info.source}"
    _check_names(f"The backend {name} offers", session.offers, table, unknown)
    _check_names(f"The backend {name} has a gap at", session.gaps, table, unknown)
    if "logits" not in session.offers:
        raise SchemaViolationError(
            f"The backend {name} does not offer the logits of {session.info.source}: nothing can be checked."
        )
    for site, offer in session.offers.items():
        if not isinstance(offer, Offer):
            raise SchemaViolationError(
                f"The backend {name} offers {site} as {type(offer).__name__} instead of an Offer."
            )
        if offer.provenance.kind == "derived":
            raise SchemaViolationError(
                f"The backend {name} offers {site} as derived: what is derived, the core derives."
            )
        if site in session.gaps:
            raise SchemaViolationError(f"The backend {name} offers {site} and has a gap there too.")
    for site, gap in session.gaps.items():
        if not isinstance(gap, Gap):
            raise SchemaViolationError(f"The backend {name} has {type(gap).__name__} instead of a Gap at {site}.")
        if gap.kind not in get_args(GapKind):
            raise SchemaViolationError(
                f"The gap of {name} at {site} is of the kind {gap.kind!r}, not {', '.join(get_args(GapKind))}."
            )


def _check_abilities(session: TraceSession, backend: type[TraceBackend]) -> None:
    for ability, protocol in ABILITIES.items():
        if (ability in backend.capabilities) != isinstance(session, protocol):
            says, shows = ("claims", "do not show") if ability in backend.capabilities else ("does not claim", "show")
            raise SchemaViolationError(
                f"The backend {backend.name} {says} the capability {ability!r}, which its sessions {shows}."
            )


def _check_names(who: str, names: Iterable[str], known: Collection[str], fault: str) -> None:
    """Raises for the first name that the schema does not know, with near ones."""
    if (foreign := next((name for name in names if name not in known), None)) is not None:
        raise SchemaViolationError(f"{who} {foreign}, which {fault}.{suggest(str(foreign), known)}")
