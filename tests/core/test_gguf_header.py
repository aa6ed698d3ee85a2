"""The header of a GGUF file: all that it says is read, and nothing that it says is believed before it is checked."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from llmtrace.errors import ModelOpenError
from llmtrace.gguf_header import BLOCKS, read_header

U32, F32, BOOL, TEXT, ARRAY, U64 = 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


NAMED = entry("general.architecture", TEXT, text("toy"))
ONE = tensor("a.weight", (32, 2), 3, 0)
"""Two rows of a block of Q4_1: 40 bytes."""
TWO = tensor("b.weight", (4,), 0, 64)


def write(path: Path, entries: list[bytes], tensors: list[bytes], data: bytes = bytes(80), version: int = 3) -> Path:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries) + b"".join(tensors)
    path.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + data)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toy.gguf"


def test_every_value_is_read_as_its_type(path):
    words = text("Ġa") + text("") + text(b"\xff")
    entries = [
        NAMED,
        entry("toy.block_count", U32, struct.pack("<I", 3)),
        entry("toy.eps", F32, struct.pack("<f", 0.5)),
        entry("toy.flag", BOOL, b"\x01"),
        entry("toy.words", ARRAY, array(TEXT, 3, words)),
        entry("toy.numbers", ARRAY, array(5, 2, struct.pack("<2i", -1, 7))),
        entry("toy.flags", ARRAY, array(BOOL, 2, b"\x01\x00")),
        entry("toy.last", U64, struct.pack("<Q", 2**40)),
    ]
    header = read_header(write(path, entries, [ONE, TWO]))
    assert header.architecture == "toy" and header.metadata["toy.flag"] is True
    assert (header.metadata["toy.block_count"], header.metadata["toy.eps"]) == (3, 0.5)
    assert header.metadata["toy.last"] == 2**40, "what stands after the arrays"
    assert set(header.arrays) == {"toy.words", "toy.numbers", "toy.flags"} and not set(header.arrays) & set(
        header.metadata
    )
    assert header.array("toy.words") == ["Ġa", "", "\udcff"] and header.arrays["toy.words"].count == 3
    assert header.array("toy.numbers") == [-1, 7] and header.array("toy.flags") == [True, False]
    assert header.start % 32 == 0 and header.start + 80 == path.stat().st_size
    one = header.tensors["a.weight"]
    assert (one.shape, one.kind, one.offset, one.size) == ((32, 2), "Q4_1", 0, 40) and header.kinds == "Q4_1, F32"


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read_and_no_other(version, path):
    assert read_header(write(path, [NAMED], [], version=version)).tensors == {}
    with pytest.raises(ModelOpenError, match="GGUF version 50331648"):
        read_header(write(path, [NAMED], [], version=3 << 24))  # another byte order


FAULTS: dict[str, tuple[list[bytes], list[bytes], str]] = {
    "a key twice": ([NAMED, NAMED], [], "its metadata have general.architecture twice"),
    "a scalar and an array": ([NAMED, entry("a", U32, bytes(4)), entry("a", ARRAY, array(U32, 0, b""))], [], "have a twice"),
    "a tensor twice": ([NAMED], [ONE, ONE], "has the tensor a.weight twice"),
    "no architecture": ([], [], "does not say its general.architecture"),
    "an architecture that is a number": ([entry("general.architecture", U32, bytes(4))], [], "general.architecture"),
    "a type": ([NAMED, entry("toy.x", 77, bytes(4))], [], "toy.x has the unknown type 77"),
    "an array in an array": ([NAMED, entry("toy.x", ARRAY, array(ARRAY, 1, bytes(12)))], [], "toy.x is an array of the unknown type 9"),
    "neither true nor false": ([NAMED, entry("toy.x", BOOL, b"\x02")], [], "toy.x at byte .* is neither true nor false but 2"),
    "a text that is not UTF-8": ([NAMED, entry("toy.x", TEXT, text(b"\xff"))], [], "the text at byte .* is not UTF-8"),
    "a long array": ([NAMED, entry("toy.x", ARRAY, array(U64, 2**60, b""))], [], "in toy.x reaches from byte"),
    "a long array of texts": ([NAMED, entry("toy.x", ARRAY, array(TEXT, 2**60, b""))], [], "toy.x is an array of 1152921504606846976 texts"),
    "a long text in an array": ([NAMED, entry("toy.x", ARRAY, array(TEXT, 1, struct.pack("<Q", 2**63)))], [], "toy.x reaches beyond"),
    "a long name": ([struct.pack("<Q", 2**63) + bytes(40)], [], "reaches from byte"),
    "no name": ([NAMED, entry("", U32, bytes(4))], [], "the name of the metadata entry"),
    "an alignment of zero": ([NAMED, entry("general.alignment", U32, bytes(4))], [], "general.alignment is 0"),
    "an odd alignment": ([NAMED, entry("general.alignment", U32, struct.pack("<I", 48))], [], "alignment is 48"),
    "no dimensions": ([NAMED], [tensor("a", (), 0, 0)], "the tensor a has 0 dimensions"),
    "five dimensions": ([NAMED], [tensor("a", (1,) * 5, 0, 0)], "the tensor a has 5 dimensions"),
    "an empty axis": ([NAMED], [tensor("a", (0, 4), 0, 0)], "cannot be stored"),
    "axes whose product overflows": ([NAMED], [tensor("a", (2**32, 2**32), 0, 0)], "cannot be stored"),
    "half a block": ([NAMED], [tensor("a", (16, 2), 3, 0)], r"the tensor a of shape '?\[16, 2\]'? cannot be stored as Q4_1, 32 at a time"),
    "a storage type": ([NAMED], [tensor("a", (4,), 999, 0)], "stores a as the type 999"),
    "an offset off the grid": ([NAMED], [tensor("a", (4,), 0, 4)], "a has the offset 4, which 32 does not divide"),
    "tensors on one another": ([NAMED], [ONE, tensor("b", (4,), 0, 32)], "b at offset 32 overlaps a.weight, which ends at 40"),
    "a tensor beyond the end": ([NAMED], [tensor("a", (4096,), 0, 0)], "a should end at byte"),
    "an offset beyond all": ([NAMED], [tensor("a", (4,), 0, 2**64 - 32)], "a should end at byte"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_sound_is_refused_by_name(fault, path):
    entries, tensors, message = FAULTS[fault]
    with pytest.raises(ModelOpenError, match=message) as caught:
        read_header(write(path, entries, tensors))
    assert "toy.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_a_terminal_is_not_written_to_by_a_name_in_the_file(path):
    with pytest.raises(ModelOpenError) as caught:
        read_header(write(path, [NAMED], [tensor("\x1b[2Jevil", (), 0, 0)]))
    assert "\x1b" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(path):
    entries = [NAMED, entry("toy.words", ARRAY, array(TEXT, 2, text("one") + text("two")))]
    whole = write(path, entries, [ONE, TWO]).read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelOpenError, match="truncated or not a sound GGUF file"):
            read_header(path)


def test_a_changed_byte_anywhere_is_refused_or_harmless(path):
    entries = [NAMED, entry("toy.words", ARRAY, array(TEXT, 2, text("one") + text("two")))]
    whole = write(path, entries, [ONE, TWO]).read_bytes()
    refused = 0
    for place in range(len(whole) - 80):
        for value in (0, 1, 127, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                header = read_header(path)
                assert all(header.start + one.offset + one.size <= len(whole) for one in header.tensors.values())
            except ModelOpenError:
                refused += 1
    assert refused > 300


def test_what_is_no_file_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.gguf"):
        with pytest.raises(ModelOpenError, match="cannot be read"):
            read_header(path)


def test_a_vocabulary_is_not_read_before_it_is_asked_for(path):
    header = read_header(write(path, [NAMED, entry("toy.words", ARRAY, array(TEXT, 1, text("one")))], []))
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    assert header.array("toy.words") == ["two"]


def test_the_table_of_blocks_is_that_of_the_package_gguf():
    constants = pytest.importorskip("gguf.constants")
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in constants.GGML_QUANT_SIZES.items()}
    assert {kind: BLOCKS[kind] for kind in theirs if kind in BLOCKS} == {
        kind: row for kind, row in theirs.items() if kind in BLOCKS
    }
    assert len(set(theirs) & set(BLOCKS)) > 25


def test_a_file_of_the_package_gguf_is_read_as_the_package_reads_it(tmp_path):
    gguf = pytest.importorskip("gguf")
    path, random = tmp_path / "its.gguf", np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(77)
    writer.add_token_list(["a", "ü", "c"])
    writer.add_array("llama.widths", [3, 4, 5])
    for name, shape, kind in (("m", (6, 64), "Q8_0"), ("v", (7,), "F32"), ("h", (2, 3, 5), "F16")):
        one = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(random.normal(size=shape).astype(np.float32), one), raw_dtype=one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header, reader = read_header(path), gguf.GGUFReader(path)
    for key, value in {**header.metadata, **{key: header.array(key) for key in header.arrays}}.items():
        assert reader.fields[key].contents() == value
    assert {*header.metadata, *header.arrays} == {key for key in reader.fields if not key.startswith("GGUF.")}
    found = [(one.name, one.kind, header.start + one.offset, one.size, one.shape) for one in header.tensors.values()]
    assert found == [
        (one.name, one.tensor_type.name, one.data_offset, one.n_bytes, tuple(int(n) for n in one.shape))
        for one in reader.tensors
    ]
