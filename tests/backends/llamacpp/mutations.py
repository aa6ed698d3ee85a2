"""Damaged GGUF files: what a download, a disk or an attacker does to one. **Map**: where the parts of the header lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen

from llmtrace.gguf_header import SCALARS

STRING, ARRAY = 8, 9
WILD = (0, 1, 2, 3, 31, 33, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
"""Numbers that break arithmetic."""


@frozen
class Map:
    """Byte places in a sound file."""

    raw: bytes
    entries: tuple[tuple[int, int], ...]
    """From and to of each metadata entry."""
    scalars: tuple[tuple[int, int], ...]
    """Place and type of each metadata scalar."""
    lengths: tuple[int, ...]
    """Places of the lengths of texts and arrays, 64 bits each."""
    tensors: tuple[tuple[int, int], ...]
    """From and to of each tensor's description."""
    dimensions: tuple[int, ...]
    """Places of extents, 64 bits each."""
    types: tuple[int, ...]
    """Places of tensors' types, 32 bits each."""
    offsets: tuple[int, ...]
    """Places of tensors' offsets, 64 bits each."""

    @property
    def end(self) -> int:
        """Of the header."""
        return self.tensors[-1][1]


def mapped(path: Path) -> Map:
    """Where everything lies: a walk of its own, which trusts the file."""
    raw, at = path.read_bytes(), 24

    def number(form: str, place: int) -> int:
        return int(struct.unpack_from("<" + form, raw, place)[0])

    count, entries = number("Q", 8), number("Q", 16)
    scalars: list[tuple[int, int]] = []
    lengths: list[int] = []
    spans: list[tuple[int, int]] = []

    def text(place: int) -> int:
        lengths.append(place)
        return place + 8 + number("Q", place)

    for _ in range(entries):
        start, at = at, text(at)
        kind, at = number("I", at), at + 4
        if kind == STRING:
            at = text(at)
        elif kind == ARRAY:
            inner, many = number("I", at), number("Q", at + 4)
            lengths.append(at + 4)
            at += 12
            for _ in range(many):
                at = at + 8 + number("Q", at) if inner == STRING else at + struct.calcsize(SCALARS[inner])
        else:
            scalars.append((at, kind))
            at += struct.calcsize(SCALARS[kind])
        spans.append((start, at))
    tensors, dimensions, types, offsets = [], [], [], []
    for _ in range(count):
        start, at = at, text(at)
        axes = number("I", at)
        dimensions += [at + 4 + 8 * axis for axis in range(axes)]
        at += 4 + 8 * axes
        types.append(at)
        offsets.append(at + 4)
        at += 12
        tensors.append((start, at))
    return Map(
        raw,
        tuple(spans),
        tuple(scalars),
        tuple(lengths),
        tuple(tensors),
        tuple(dimensions),
        tuple(types),
        tuple(offsets),
    )


def put(raw: bytes, place: int, form: str, value: int) -> bytes:
    """With one number written over."""
    value &= (1 << 8 * struct.calcsize(form)) - 1
    return raw[:place] + struct.pack("<" + form.upper(), value) + raw[place + struct.calcsize(form) :]


def cut_short(of: Map, rng: random.Random) -> bytes:
    return of.raw[: rng.randrange(len(of.raw))]


def cut_in_the_header(of: Map, rng: random.Random) -> bytes:
    return of.raw[: rng.randrange(of.end)]


def a_bit_of_the_header(of: Map, rng: random.Random) -> bytes:
    changed = bytearray(of.raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        changed[rng.randrange(of.end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def a_bit_of_the_tensors(of: Map, rng: random.Random) -> bytes:
    changed = bytearray(of.raw)
    changed[rng.randrange(of.tensors[0][0], of.end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def a_wild_scalar(of: Map, rng: random.Random) -> bytes:
    place, kind = rng.choice(of.scalars)
    return put(of.raw, place, {"f": "I", "d": "Q"}.get(SCALARS[kind], SCALARS[kind]), rng.choice(WILD))


def a_wild_length(of: Map, rng: random.Random) -> bytes:
    return put(of.raw, rng.choice(of.lengths), "Q", rng.choice(WILD))


def a_near_length(of: Map, rng: random.Random) -> bytes:
    place = rng.choice(of.lengths)
    return put(of.raw, place, "Q", struct.unpack_from("<Q", of.raw, place)[0] + rng.choice((-1, 1)))


def a_wild_count(of: Map, rng: random.Random) -> bytes:
    return put(of.raw, rng.choice((8, 16)), "Q", rng.choice((*WILD, len(of.tensors) - 1, len(of.entries) + 1)))


def a_wild_dimension(of: Map, rng: random.Random) -> bytes:
    return put(of.raw, rng.choice(of.dimensions), "Q", rng.choice(WILD))


def a_near_dimension(of: Map, rng: random.Random) -> bytes:
    place = rng.choice(of.dimensions)
    return put(of.raw, place, "Q", struct.unpack_from("<Q", of.raw, place)[0] + rng.choice((-32, -1, 1, 32)))


def dimensions_exchanged(of: Map, rng: random.Random) -> bytes:
    place, other = rng.sample(of.dimensions, 2)
    (here,), (there,) = (struct.unpack_from("<Q", of.raw, each) for each in (place, other))
    return put(put(of.raw, place, "Q", there), other, "Q", here)


def another_type(of: Map, rng: random.Random) -> bytes:
    return put(of.raw, rng.choice(of.types), "I", rng.choice((*range(42), 2**31, 2**32 - 1)))


def a_wild_offset(of: Map, rng: random.Random) -> bytes:
    return put(of.raw, rng.choice(of.offsets), "Q", rng.choice((*WILD, *(32 * each for each in WILD))))


def offsets_exchanged(of: Map, rng: random.Random) -> bytes:
    place, other = rng.sample(of.offsets, 2)
    (here,), (there,) = (struct.unpack_from("<Q", of.raw, each) for each in (place, other))
    return put(put(of.raw, place, "Q", there), other, "Q", here)


def an_entry_twice(of: Map, rng: random.Random) -> bytes:
    start, end = rng.choice(of.entries)
    return _padded(of, put(of.raw[:end], 16, "Q", len(of.entries) + 1) + of.raw[start:end] + of.raw[end : of.end])


def an_entry_less(of: Map, rng: random.Random) -> bytes:
    start, end = rng.choice(of.entries)
    return _padded(of, put(of.raw[:start], 16, "Q", len(of.entries) - 1) + of.raw[end : of.end])


def a_tensor_less(of: Map, rng: random.Random) -> bytes:
    start, end = rng.choice(of.tensors)
    return _padded(of, put(of.raw[:start], 8, "Q", len(of.tensors) - 1) + of.raw[end : of.end])


def numbers_that_are_none(of: Map, rng: random.Random) -> bytes:
    """NaN and infinity among the weights: no damage that a header shows."""
    changed, data = bytearray(of.raw), -(-of.end // 32) * 32
    for _ in range(8):
        place = data + 4 * rng.randrange((len(changed) - data) // 4)
        changed[place : place + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), -3e38)))
    return bytes(changed)


def _padded(of: Map, header: bytes) -> bytes:
    """A header of another length, before the same data."""
    return header + bytes(-len(header) % 32) + of.raw[-(-of.end // 32) * 32 :]


KINDS: Mapping[str, Callable[[Map, random.Random], bytes]] = {
    each.__name__: each
    for each in (
        cut_short, cut_in_the_header, a_bit_of_the_header, a_bit_of_the_tensors, a_wild_scalar, a_wild_length, a_near_length,
        a_wild_count, a_wild_dimension, a_near_dimension, dimensions_exchanged, another_type, a_wild_offset, offsets_exchanged,
        an_entry_twice, an_entry_less, a_tensor_less, numbers_that_are_none,
    )
}  # fmt: skip


def mutations(path: Path, seeds: range) -> list[tuple[str, bytes]]:
    """Damaged copies of a file, each kind in turn, the same every time."""
    of = mapped(path)
    names = list(KINDS)
    return [
        (names[seed % len(names)], KINDS[names[seed % len(names)]](of, random.Random(seed)))  # noqa: S311  # the same files every time
        for seed in seeds
    ]
