"""A fingerprint is of what files hold, not of what they are called."""

from __future__ import annotations

import pytest

from llmtrace.fingerprint import MIB, fingerprint


def made(path, content):
    path.write_bytes(content)
    return path


def test_names_and_order_do_not_count(tmp_path):
    a, b = made(tmp_path / "a", b"one"), made(tmp_path / "b", b"two")
    first = fingerprint([a, b])
    assert len(first) == 64 and first == fingerprint([b, a]) == fingerprint([str(b), a])
    a.rename(tmp_path / "z")
    assert fingerprint([tmp_path / "z", b]) == first


def test_contents_and_their_parting_count(tmp_path):
    found = {
        fingerprint([made(tmp_path / "a", one), made(tmp_path / "b", two)])
        for one, two in ((b"one", b"two"), (b"one", b"tw"), (b"onet", b"wo"), (b"one", b"twO"), (b"onetwo", b""))
    }
    assert len(found) == 5
    assert fingerprint([tmp_path / "a"]) != fingerprint([tmp_path / "a", tmp_path / "a"])


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1])
def test_every_byte_counts_up_to_two_mib(tmp_path, size):
    path = made(tmp_path / "a", bytes(size))
    first = fingerprint([path])
    for place in {0, size // 2, MIB - 1, MIB, size - 1} & set(range(min(size, 2 * MIB))):
        changed = bytearray(size)
        changed[place] = 1
        unseen = size > 2 * MIB and MIB <= place < size - MIB
        assert (fingerprint([made(tmp_path / "b", bytes(changed))]) == first) == unseen, place
    assert fingerprint([made(tmp_path / "b", bytes(size + 1))]) != first


def test_a_large_file_is_known_by_its_size_and_its_ends(tmp_path):
    whole = bytearray(5 * MIB)
    first = fingerprint([made(tmp_path / "a", bytes(whole))])
    whole[3 * MIB] = 1
    assert fingerprint([made(tmp_path / "a", bytes(whole))]) == first
    whole[-1] = 1
    assert fingerprint([made(tmp_path / "a", bytes(whole))]) != first
