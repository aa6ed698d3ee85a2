"""Records to JSON and back, by cattrs. **Tag**: the key `record`, which says which of several records an object is.

Strict both ways: an unknown key, a missing one, a number where a text belongs, NaN or infinity are errors.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import lru_cache
from types import GenericAlias, NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter, transform_error
from cattrs.v import format_exception

T = TypeVar("T")
TAG = "record"


def to_json(record: Any) -> Any:
    """A record as dictionaries, lists, texts and numbers. Raises `ValueError` for a number that JSON does not have."""
    return _converter().unstructure(record)


def from_json(value: Any, kind: type[T]) -> T:
    """The record that `to_json` made this of. Raises `ValueError` that says where it is not one."""
    try:
        return _converter().structure(value, kind)
    except Exception as error:  # cattrs raises groups of whatever the records' own checks raise
        raise ValueError(transform_error(error, "manifest", _say)[0]) from error


def _say(error: BaseException, kind: Any) -> str:
    """Our own words where there are any."""
    return str(error) if type(error) is ValueError else format_exception(error, kind)


@lru_cache(maxsize=1)
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(float, _number)
    converter.register_unstructure_hook(float, lambda value: _number(value, float))
    converter.register_structure_hook(bytes, lambda value, _: base64.b64decode(_exactly(value, str), validate=True))
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode("ascii"))
    converter.register_structure_hook_func(is_tagged, _read_tagged(converter))
    converter.register_unstructure_hook_func(is_tagged, _write_tagged(converter))
    converter.register_structure_hook_func(_is_tuple, _read_tuple(converter))
    return converter


def is_tagged(kind: Any) -> bool:
    """Whether a type is a choice between records (and perhaps None)."""
    return get_origin(kind) in (Union, UnionType) and sum(map(attrs.has, get_args(kind))) > 1


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _exactly(value: Any, kind: type[T]) -> T:
    """The value itself, if it is of this very type: `true` is no integer, and `"5"` no number."""
    if type(value) is not kind:
        raise ValueError(f"{value!r:.40} is not {kind.__name__}")
    return value


def _number(value: Any, _: type[float]) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a finite number")
    return float(value)


def _read_tuple(converter: Converter) -> Callable[[Any, Any], Any]:
    """Only a list makes a tuple: cattrs alone would also take a text apart."""

    def read(value: Any, kind: Any) -> Any:
        items: Any = GenericAlias(list, get_args(kind)[:1])
        return tuple(converter.structure(_exactly(value, list), items))

    return read


def _read_tagged(converter: Converter) -> Callable[[Any, Any], Any]:
    def read(value: Any, kind: Any) -> Any:
        kinds = {each.__name__: each for each in get_args(kind) if each is not NoneType}
        if value is None and NoneType in get_args(kind):
            return None
        tag = _exactly(value, dict).get(TAG)
        if not isinstance(tag, str) or tag not in kinds:
            raise ValueError(f"{tag!r:.40} is none of {', '.join(kinds)}")
        return converter.structure({name: each for name, each in value.items() if name != TAG}, kinds[tag])

    return read


def _write_tagged(converter: Converter) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        return None if value is None else {TAG: type(value).__name__} | converter.unstructure(value)

    return write
