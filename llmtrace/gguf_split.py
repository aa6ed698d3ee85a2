"""A GGUF file that was split. **Part**: one of its files, `model-00001-of-00003.gguf`; the first has the metadata, each its own tensors.

Every part says which it is (`split.no`, from 0), how many there are (`split.count`) and how many tensors they have together
(`split.tensors.count`). They find each other by their names alone, as llama.cpp has it.
https://github.com/ggml-org/llama.cpp/tree/master/tools/gguf-split
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import evolve

from llmtrace.errors import ModelOpenError, shown
from llmtrace.gguf_header import Header, TensorInfo, check_named, read_part

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
NAMED = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MOST_PARTS = 99_999
"""As many as five digits name."""


def read_whole(path: Path) -> Header:
    """The header of a model, whose parts lie beside the first: all tensors, each with the file that has it.

    Raises `ModelOpenError` naming the file: one that is no first part, one that is missing, damaged, or a part of another model.
    """
    first = read_part(path)
    count = _count(first)
    if count < 2:
        return check_named(first)
    number = _number(first)
    name = NAMED.match(path.name)
    if number:
        beside = f": {path.with_name(_named(name['stem'], 0, count)).name}" if name else ""
        raise ModelOpenError(
            f"{path} is part {number + 1} of the {count} that a model was split into, and has no metadata: open the first{beside}."
        )
    if not name or (int(name["number"]), int(name["count"])) != (1, count):
        raise ModelOpenError(
            f"{path} is the first of the {count} parts that a model was split into, and the others are found by its name: call it "
            f"{_named(name['stem'] if name else path.stem, 0, count)}, and the others after it."
        )
    others = [_part(path.with_name(_named(name["stem"], index, count)), index, first) for index in range(1, count)]
    return _joined(check_named(first), others)


def parts_beside(path: Path) -> tuple[Path, ...]:
    """The files of a model by the name of its first part alone, whether they are there or not; of one that is not split, itself.

    >>> [part.name for part in parts_beside(Path("a-00001-of-00002.gguf"))]
    ['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf']
    """
    name = NAMED.match(path.name)
    if not name or int(name["number"]) != 1 or int(name["count"]) < 2:
        return (path,)
    return tuple(path.with_name(_named(name["stem"], index, int(name["count"]))) for index in range(int(name["count"])))


def _named(stem: str, index: int, count: int) -> str:
    return f"{stem}-{index + 1:05d}-of-{count:05d}.gguf"


def _whole(header: Header, key: str, default: int, most: int) -> int:
    """A number from 0 to `most` that a part says."""
    value: Any = header.metadata.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        raise ModelOpenError(f"{header.path} says {key} = {shown(value)}; it must be a whole number up to {most:,}.")
    return value


def _count(header: Header) -> int:
    return _whole(header, COUNT, 0, MOST_PARTS)


def _number(header: Header) -> int:
    return _whole(header, NUMBER, 0, _count(header) - 1)


def _part(path: Path, index: int, first: Header) -> Header:
    """Another part than the first, which is of the same model as far as the two say."""
    count = _count(first)
    if not path.is_file():
        raise ModelOpenError(
            f"{path} is missing: {first.path.name} is the first of {count} parts, and all must lie beside it. Fetch that one too."
        )
    part = read_part(path)
    if (own := _count(part)) != count:
        said = f"one of {own} parts" if own > 1 else "not a part of anything"
        raise _foreign(part, first, f"it says that it is {said}, not one of {count}")
    if (number := _number(part)) != index:
        raise _foreign(part, first, f"it says that it is part {number + 1}, and is named as part {index + 1}")
    for key in ("general.architecture", TENSORS):
        if (own := part.metadata.get(key, first.metadata.get(key))) != first.metadata.get(key):
            raise _foreign(part, first, f"it says {key} = {shown(own)}, the first {shown(first.metadata.get(key))}")
    return part


def _foreign(part: Header, first: Header, why: str) -> ModelOpenError:
    return ModelOpenError(f"{part.path} does not belong to {first.path.name}: {why}. Fetch both from the same place.")


def _joined(first: Header, others: list[Header]) -> Header:
    tensors: dict[str, TensorInfo] = {}
    for part in (first, *others):
        for name, info in part.tensors.items():
            if name in tensors:
                twice = f"it has the tensor {shown(name)}, as {tensors[name].path.name} has"
                raise _foreign(part, first, twice)
            tensors[name] = info
    announced = first.metadata.get(TENSORS, len(tensors))
    if announced != len(tensors):
        raise ModelOpenError(
            f"{first.path} says {TENSORS} = {shown(announced)}, and its {len(others) + 1} parts have {len(tensors)}: one of them is "
            "damaged, or of another model. Fetch them again."
        )
    return evolve(first, tensors=tensors, paths=(first.path, *(part.path for part in others)))
