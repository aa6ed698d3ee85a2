"""A backend's settings as its options class declares them. **Preset**: a named set of them; **option**: one setting, by name.

Options come as Python values, or as text from a command line or a saved trace; text is read as the option's declared type.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import attrs

from llmtrace.calling import calling
from llmtrace.errors import BackendError, OptionError, suggest
from llmtrace.protocol import Preset, TraceBackend

Options: TypeAlias = Mapping[str, str | int | float | bool | None]
WANTED: Mapping[object, str] = {
    NoneType: "none",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}
SWITCH = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


def settings(backend: type[TraceBackend], preset: Preset, options: Options) -> Any:
    """The preset's options with the user's over them, each as its declared type. Raises `OptionError`, `BackendError`."""
    if preset not in ("exact", "shipped"):
        raise OptionError(f"There is no preset {preset!r}; there are exact and shipped.")
    with calling(backend.name, "preset"):
        base = backend.preset(preset)
    if not isinstance(base, backend.options):
        raise BackendError(
            f"The preset of the backend {backend.name} returned {type(base).__name__}, which is not its options: report it to its author."
        )
    with calling(backend.name, "options"):
        declared = get_type_hints(backend.options)
    for name in options:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise OptionError(
                f"The backend {backend.name} has no option {name!r}; it has {known}.{suggest(name, declared)}"
            )
    values = {name: _as_type(backend.name, name, value, declared[name]) for name, value in options.items()}
    try:
        return attrs.evolve(base, **values)
    except (ValueError, TypeError) as error:  # a validator of attrs adds the attribute and more to what it says
        raise OptionError(
            f"The backend {backend.name} refuses its options: {error.args[0] if error.args else error}"
        ) from error


def _as_type(backend: str, name: str, value: object, hint: Any) -> object:
    """A value as the option's type wants it; text (from a command line, from a saved trace) is read as that type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not all(isinstance(kind, type) for kind in kinds):
        return value
    if type(value) in kinds:
        return None if value == "none" and NoneType in kinds else value
    try:
        if isinstance(value, str):
            return _read(value, kinds)
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    except (KeyError, ValueError):
        pass
    wanted = " or ".join(WANTED.get(kind, kind.__name__) for kind in kinds)
    raise OptionError(f"The option {name}={value!r} of the backend {backend} must be {wanted}.")


def _read(text: str, kinds: tuple[Any, ...]) -> object:
    """Raises `KeyError` or `ValueError` for text that is none of these kinds."""
    if NoneType in kinds and text.lower() in ("none", ""):
        return None
    if bool in kinds:
        return SWITCH[text.lower()]
    return int(text) if int in kinds else float(text)


def as_text(options: Any) -> dict[str, str]:
    """Every option as the text that `_as_type` reads back."""
    values = {row.name: getattr(options, row.name) for row in attrs.fields(type(options))}
    return {name: "none" if value is None else str(value) for name, value in values.items()}
