"""A file that was split opens by its first part, and is then the model that it was; a part that is not what it should be is named."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest

import llmtrace
from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace.fingerprint import fingerprint
from llmtrace_llamacpp.weights import open_gguf
from tests.backends.llamacpp.splitting import split
from tests.backends.llamacpp.tiny import LLAMA3, changed, llama_cpp, write_gguf

TOKENS = (5, 17, 3, 88, 41, 41, 9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stretched by a table, which is a tensor that is no weight: it lies in the last part."""
    return write_gguf(changed("llama", rope_scaling=LLAMA3), tmp_path_factory.mktemp("whole") / "tiny.gguf")


@pytest.fixture
def parts(whole, tmp_path):
    found = split(whole, tmp_path, 15)
    assert [part.name for part in found] == [f"tiny-0000{number}-of-00004.gguf" for number in (1, 2, 3, 4)]
    return found


@pytest.mark.parametrize("first_bare", [False, True])
def test_the_first_part_opens_the_model_and_every_equation_holds(whole, tmp_path, first_bare):
    first = split(whole, tmp_path, 15, first_bare=first_bare)[0]
    np.testing.assert_array_equal(llama_cpp(first, TOKENS), llama_cpp(whole, TOKENS))
    with llmtrace.open(first) as model, llmtrace.open(whole, options={"guard": False}) as other:
        assert (
            model.info.backend == "llamacpp" and model.spec == other.spec and model.info.weights == other.info.weights
        )
        verdicts = model.verify(list(TOKENS))
        assert {error.status for error in verdicts} == {"holds"} and len(verdicts) > 50


def test_weights_of_all_parts_are_those_of_the_whole_to_the_bit(whole, parts):
    ours, theirs = open_gguf(parts[0]), open_gguf(whole)
    assert set(ours.weights) == set(theirs.weights) and ours.stored == theirs.stored
    for name, array in theirs.weights.items():
        assert np.array_equal(ours.weights[name], array), name
    assert len({ours.header.tensors[name].path for name in ours.header.tensors}) == 4


def test_the_fingerprint_is_of_all_parts(parts):
    before = open_gguf(parts[0]).fingerprint
    assert before == fingerprint(parts)
    data = bytearray(parts[3].read_bytes())
    data[-1] ^= 1
    parts[3].write_bytes(data)
    assert open_gguf(parts[0]).fingerprint != before


def test_links_to_files_of_other_names_open_as_the_links_are_called(parts, tmp_path):
    """As the hub's cache has them."""
    (tmp_path / "blobs").mkdir()
    for index, part in enumerate(parts):
        shutil.move(part, tmp_path / "blobs" / f"{index}f3a")
        part.symlink_to(tmp_path / "blobs" / f"{index}f3a")
    with llmtrace.open(parts[0], backend="llamacpp") as model:
        assert {error.status for error in model.verify(list(TOKENS))} == {"holds"}


def refused(path, *words):
    with pytest.raises(ModelOpenError) as caught:
        llmtrace.open(path, backend="llamacpp")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def with_number(path, key, value):
    """The part with another value of an integer in its metadata."""
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    width = {2: "H", 5: "i", 4: "I"}[struct.unpack_from("<I", data, place)[0]]
    struct.pack_into("<" + width, data, place + 4, value)
    path.write_bytes(data)


def test_a_part_that_is_missing_is_named(parts):
    parts[2].unlink()
    refused(parts[0], f"{parts[2]} is missing", "tiny-00001-of-00004.gguf is the first of 4 parts", "beside it")


def test_another_part_than_the_first_names_the_first(parts):
    refused(parts[1], f"{parts[1]} is part 2 of the 4", "open the first", str(parts[0].name))


def test_a_first_part_of_another_name_says_how_it_must_be_called(parts, tmp_path):
    other = parts[0].rename(tmp_path / "model.gguf")
    refused(other, str(other), "call it model-00001-of-00004.gguf")


def test_a_part_that_ends_too_soon_is_named(parts):
    parts[3].write_bytes(parts[3].read_bytes()[:-40])
    refused(parts[0], str(parts[3]), "truncated", "Fetch it again")


def test_a_part_that_is_no_gguf_is_named(parts):
    parts[1].write_bytes(b"<html>not found</html>, and more of it")
    refused(parts[0], f"{parts[1]} is not a GGUF file")


def test_a_part_in_the_place_of_another_is_named(parts):
    shutil.copy(parts[1], parts[2])
    refused(parts[0], str(parts[2]), "says that it is part 2, and is named as part 3")


def test_a_whole_model_in_the_place_of_a_part_is_named(parts, whole):
    shutil.copy(whole, parts[2])
    refused(parts[0], str(parts[2]), "not a part of anything", "Fetch both from the same place")


def test_a_part_of_a_model_of_another_size_is_named(parts, tmp_path):
    with_number(parts[2], "split.tensors.count", 99)
    refused(parts[0], str(parts[2]), "split.tensors.count = 99, the first 52")


def test_a_part_with_tensors_that_another_has_is_named(parts):
    shutil.copy(parts[1], parts[2])
    with_number(parts[2], "split.no", 2)
    refused(parts[0], str(parts[2]), "does not belong to tiny-00001-of-00004.gguf", "as tiny-00002-of-00004.gguf has")


def test_parts_that_have_not_all_that_was_announced_are_counted(parts):
    for part in parts:
        with_number(part, "split.tensors.count", 99)
    refused(parts[0], str(parts[0]), "says split.tensors.count = 99, and its 4 parts have 52")


def test_a_number_that_no_part_has_is_named(parts):
    with_number(parts[0], "split.no", 65535)
    refused(parts[0], f"{parts[0]} says split.no = 65535; it must be a whole number up to 3")


def test_torch_says_that_it_reads_whole_files_only(parts):
    pytest.importorskip("llmtrace_torch")
    with pytest.raises(UnsupportedModelError, match=r"first of 4 parts.*gguf-split --merge.*llamacpp"):
        llmtrace.open(parts[0], backend="torch")
