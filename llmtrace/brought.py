"""Holds what a plugin brings to what its hook promises, before anything of it is used. **Fault**: what is wrong, in words that follow
the thing's name; empty where nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import attrs

NAME = re.compile(r"[a-z][a-z0-9_-]*")
CAPABILITIES = ("weights", "replay", "many", "edits", "replacement")
"""What a backend may claim that its sessions support beyond `run`."""
NEEDS = {"T": "a trace", "W": "weights"}
"""What an influence method may ask of a backend."""
CONTRACT = ("output", "features", "process", "fixed", "unit")
Kind = Literal["backend", "influence method", "viewer", "hypothesis", "motif"]


def fault(kind: Kind, item: object) -> str:
    """Of one thing that a hook answered with. A stranger's class may raise anything when it is looked at: that is a fault too."""
    try:
        return FAULTS[kind](item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"cannot be looked at: {type(error).__name__}: {error}"


def name_of(item: object) -> str:
    """The thing's name, if it has one that could be used."""
    try:
        name = getattr(item, "name", None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # as above
        return ""
    return name if isinstance(name, str) and NAME.fullmatch(name) else ""


def _backend(item: Any) -> str:
    if not _class(item):
        return "is no class: return the backend's class, not an instance"
    lacking = ("name", "runtime", "distributions", "options", "capabilities", "probe", "preset", "open")
    return (
        _lacks(item, lacking)
        or _named(item)
        or _texts(item, ("runtime",))
        or _names(item, "distributions")
        or _names(item, "capabilities")
        or next((f"has the capability {each!r}; there are {', '.join(CAPABILITIES)}" for each in item.capabilities
                 if each not in CAPABILITIES), "")
        or ("" if _frozen(item.options) else "has `options` that are no frozen attrs class")
        or _callables(item, ("probe", "preset", "open"))
        or _schema(item)
    )  # fmt: skip


def foreign(backend: Any) -> str:
    """What is wrong with the schema that a backend says it was written for (`schema_version`); one that says nothing is not checked."""
    theirs, ours = getattr(backend, "schema_version", None), _speaks()
    if theirs in (None, ours):
        return ""
    return f"is written for version {theirs} of the signal schema, and this LLMTrace speaks version {ours}"


def older_of(backend: Any, distribution: str) -> str:
    """Which distribution to upgrade, where the two speak of different schemas."""
    return "llmtrace-core" if backend.schema_version > _speaks() else distribution or "it"


def _speaks() -> int:
    from llmtrace.schema import SCHEMA_VERSION  # with NumPy, which who lists the names of commands does not want

    return SCHEMA_VERSION


def _method(item: Any) -> str:
    from llmtrace.influence.method import Method
    from llmtrace.influence.record import Contract

    contract: object = getattr(item, "contract", None)
    if not isinstance(item, Method):
        return "is no `llmtrace.influence.method.Method`"
    return (
        _named(item)
        or _texts(item, ("title", "needs", "cost", "source"))
        or _needs(item)
        or _flags(item, ("predictions", "aims"))
        or ("" if item.completeness is None else _texts(item, ("completeness",)))
        or (_texts(contract, CONTRACT) if isinstance(contract, Contract) else "has a `contract` that is no `Contract`")
        or _callables(item, ("fold",))
    )


def _needs(item: Any) -> str:
    known = set(item.needs.split()) <= set(NEEDS)
    letters = ", ".join(f"{letter} ({what})" for letter, what in NEEDS.items())
    return "" if known else f"has `needs` {item.needs!r}: it must be letters with blanks between, of {letters}"


def _viewer(item: Any) -> str:
    if not _class(item):
        return "is no class: return the viewer's class, not an instance"
    return (
        _lacks(item, ("name", "suffix", "render"))
        or _named(item)
        or _texts(item, ("suffix",))
        or ("" if item.suffix.startswith(".") else f"has the suffix {item.suffix!r}, which does not begin with a dot")
        or _callables(item, ("render",))
    )


def _hypothesis(item: Any) -> str:
    from llmtrace.comparison.case import Hypothesis

    if not isinstance(item, Hypothesis):
        return "is no `llmtrace.comparison.case.Hypothesis`"
    return (
        _named(item)
        or ("" if not item.sites else _names(item, "sites"))
        or _flags(item, ("harmless",))
        or _callables(item, ("tries",))
    )


def _motif(item: Any) -> str:
    from llmtrace.circuits.motif import Motif

    if not isinstance(item, Motif):
        return "is no `llmtrace.circuits.motif.Motif`"
    return _named(item) or _texts(item, ("title", "paper"))


FAULTS: dict[Kind, Callable[[Any], str]] = {
    "backend": _backend,
    "influence method": _method,
    "viewer": _viewer,
    "hypothesis": _hypothesis,
    "motif": _motif,
}


def _class(item: object) -> bool:
    return isinstance(item, type)


def _lacks(item: object, members: tuple[str, ...]) -> str:
    missing = [f"`{member}`" for member in members if not hasattr(item, member)]
    return f"lacks {', '.join(missing)}" if missing else ""


def _named(item: Any) -> str:
    return "" if name_of(item) else f"has the name {item.name!r}: it must be lower-case letters, digits, - and _"


def _schema(item: object) -> str:
    version: object = getattr(item, "schema_version", 1)
    whole = isinstance(version, int) and not isinstance(version, bool)
    return "" if whole else f"has `schema_version` {version!r}, which is no whole number"


def _texts(item: object, members: tuple[str, ...]) -> str:
    return next(
        (f"has `{m}` {getattr(item, m)!r}, which is no text" for m in members if not _text(getattr(item, m))), ""
    )


def _flags(item: object, members: tuple[str, ...]) -> str:
    return next(
        (
            f"has `{m}` {v!r}, which is neither True nor False"
            for m in members
            if not isinstance(v := getattr(item, m), bool)
        ),
        "",
    )


def _names(item: object, member: str) -> str:
    value = getattr(item, member)
    good = isinstance(value, tuple) and all(map(_text, value))
    return "" if good else f"has `{member}` {value!r}: it must be a tuple of names"


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _callables(item: object, members: tuple[str, ...]) -> str:
    return next((f"has a `{m}` that cannot be called" for m in members if not callable(getattr(item, m))), "")


def _frozen(options: Any) -> bool:
    """Whether it is an attrs class whose instances refuse to be changed; tried on one that was never filled."""
    if not (isinstance(options, type) and attrs.has(options)):
        return False
    first = next((field.name for field in attrs.fields(options)), "anything")
    try:
        setattr(object.__new__(options), first, None)
    except attrs.exceptions.FrozenError:
        return True
    except AttributeError:
        return False
    return False
