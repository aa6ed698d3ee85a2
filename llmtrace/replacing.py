"""Weights that a model is to compute with for a while, checked before anything is touched. **Tied**: weights that lie in the same memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from llmtrace.errors import CapabilityError, OptionError, suggest
from llmtrace.protocol import SupportsReplacement, TraceSession
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Weight, needed

NUMBERS = {"float64", "float32", "float16", "bfloat16"}


def replacing(session: TraceSession) -> SupportsReplacement:
    """The session as one that replaces weights. Raises `CapabilityError` where it does not."""
    if isinstance(session, SupportsReplacement):
        return session
    raise CapabilityError(
        f"The backend {session.info.backend} cannot compute with other weights: open the model with one that can (`llmtrace backends` lists "
        "them with the capability replacement; torch and reference do)."
    )


def checked(session: TraceSession, weights: Mapping[str, Any]) -> dict[str, Array]:
    """Weights by name, as arrays that a session may be given.

    Raises `CapabilityError` for one that cannot be replaced here, and `OptionError` for a name that no equation reads, another shape, numbers
    that are not finite, and tied weights of which some are lacking.
    """
    able = replacing(session)
    known = {weight.name: weight for weight, _ in needed(session.spec)}
    found = {name: _array(session, known, name, given) for name, given in weights.items()}
    for name in found:
        if name not in able.replaceable:
            why = able.irreplaceable.get(name, "its numbers are not at hand")
            raise CapabilityError(f"{name} cannot be replaced on the backend {session.info.backend}: {why}.")
    check_tied(able.tied if found else (), found, session.info.backend)
    return found


def check_tied(tied: Collection[Collection[str]], given: Collection[str], backend: str) -> None:
    """Raises `OptionError` where one of tied weights is given without the others."""
    for group in tied:
        there = sorted(name for name in group if name in given)
        lacking = sorted(name for name in group if name not in given)
        if there and lacking:
            raise OptionError(
                f"{there[0]} lies in the same memory as {', '.join(lacking)} on the backend {backend}, so that replacing one replaces both: "
                "give them together."
            )


def _array(session: TraceSession, known: Mapping[str, Weight], name: str, given: Any) -> Array:
    if name not in known:
        raise OptionError(f"{name!r} is no weight of {session.info.source}.{suggest(name, known)}")
    array = np.asarray(given)
    if array.dtype.name not in NUMBERS:
        raise OptionError(f"{name} is to be replaced by {array.dtype.name}: give an array of floating-point numbers.")
    if array.shape != known[name].shape:
        axes = " ".join(known[name].axes)
        raise OptionError(
            f"{name} is to be replaced by an array of shape {list(array.shape)}, and it has {list(known[name].shape)} [{axes}]."
        )
    finite = np.isfinite(array)
    if not finite.all():
        at = [int(place) for place in np.argwhere(~finite)[0]]
        raise OptionError(f"{name} is to be replaced by numbers that are not finite: {array[tuple(at)]} at {at}.")
    return array
