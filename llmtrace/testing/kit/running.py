"""How the kit looks at a session: with an observer of its own, so that what the core would refuse on the way is seen as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from llmtrace.edits import Change
from llmtrace.model import Model
from llmtrace.protocol import Request, TraceSession
from llmtrace.reference.session import ReferenceSession
from llmtrace.schema.precision import ROUNDOFF
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import steps
from llmtrace.selection import Cut, Pick, cut
from llmtrace.testing.model import TinyModel
from llmtrace.trace import ModelInfo

GROWTH = 256
"""How many round-offs a signal of a tiny model may be away from the reference: errors grow over its layers."""
COARSE = 0.1
"""No signal may be further away than this, whatever its type: two signals that have nothing to do with each other are 1.4 apart."""


class Watch:
    """An observer that keeps copies of what comes, and the order in which it came."""

    def __init__(self) -> None:
        self.events: list[str | int] = []
        """Sites, and the numbers of the blocks that were closed."""
        self.arrays: dict[str, Array] = {}
        """The last array of each site."""
        self.handed: list[tuple[str, type, tuple[int, ...], str, bool, int]] = []
        """Of each array: site, class, shape, type, whether its bytes are in the machine's order, bytes."""

    def signal(self, site: str, array: Array) -> None:
        """Keep a copy."""
        self.events.append(site)
        plain = np.asarray(array)
        self.handed.append((site, type(array), plain.shape, plain.dtype.name, plain.dtype.isnative, plain.nbytes))
        self.arrays[site] = plain.copy()

    def layer_done(self, layer: int) -> None:
        """Keep its number."""
        self.events.append(layer)


def whole(session: TraceSession, tokens: int, sites: Iterable[str] | None = None) -> dict[str, Cut]:
    """All of the given sites, or of all that the session offers."""
    table = steps(session.spec)
    return {site: cut(table[site], Pick("**"), tokens) for site in (session.offers if sites is None else sites)}


def watch(
    session: TraceSession,
    tokens: Sequence[int],
    cuts: Mapping[str, Cut] | None = None,
    edits: Mapping[str, Sequence[Change]] | None = None,
) -> Watch:
    """One run of a session itself; by default everything that it offers is asked for."""
    seen = Watch()
    asked = whole(session, len(tokens)) if cuts is None else cuts
    session.run(Request(tuple(tokens), asked, {}, edits or {}), seen)
    return seen


def changed(before: Mapping[str, Array], after: Mapping[str, Array]) -> str:
    """The first few sites of which `after` does not hold the same bits, in words; empty where there is none."""
    others = [
        f"{site} is not what it was" if site in after else f"{site} did not come"
        for site, array in before.items()
        if site not in after or not np.array_equal(array, after[site], equal_nan=True)
    ]
    return ", ".join(others[:5])


def logits(session: TraceSession, tokens: Sequence[int]) -> Array:
    """Those of a run in which nothing else is asked for."""
    return watch(session, tokens, whole(session, len(tokens), ["logits"])).arrays["logits"]


def reference(tiny: TinyModel) -> Model:
    """The tiny model on the equations themselves, in float64."""
    info = ModelInfo(source=str(tiny.directory), backend="reference", runtime="NumPy", weights="float32")
    stored = dict.fromkeys(tiny.weights, "float32")
    return Model(ReferenceSession(tiny.spec, tiny.weights, stored, "float64", info))


def explained(session: TraceSession) -> float:
    """The distance from the reference that the coarsest declared rounding explains at the end of a tiny model."""
    coarsest = max(
        max(p.storage_roundoff, p.accumulation_roundoff, p.operand_roundoff, p.function_roundoff)
        for p in (offer.precision for offer in session.offers.values())
    )
    return min(GROWTH * max(coarsest, ROUNDOFF["float64"]), COARSE)
