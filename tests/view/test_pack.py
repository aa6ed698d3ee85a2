"""From documents to what the page carries."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.view import pack
from tests.view import documents


def unpack(grid):
    return np.frombuffer(base64.b64decode(grid["data"]), dtype="<f4")


def test_a_matrix_comes_back_row_by_row():
    document = documents.influence()
    packed = pack.influence(document)["matrix"]
    rows = [row[: at + 1] for at, row in enumerate(document["matrix"])]
    assert packed["queries"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(unpack(packed), np.concatenate(rows), rtol=1e-6)


def test_null_is_carried_as_nan_and_zero_as_zero():
    np.testing.assert_array_equal(unpack(pack.grid([[None, 0.0], [1.5, -2.0]])), [np.nan, 0.0, 1.5, -2.0])


def test_numbers_that_are_not_finite_become_null_at_any_depth():
    assert pack.safe({"a": [float("nan"), (1.5, float("inf"))]}) == {"a": [None, [1.5, None]]}


@given(st.integers(1, 300), st.integers(0, 60_000))
def test_the_last_rows_that_fit_are_kept(tokens, budget):
    kept = pack.last_rows(tokens, budget)
    size = sum(query + 1 for query in kept)
    assert kept == list(range(kept[0], tokens))
    assert size <= budget or len(kept) == 1
    assert kept[0] == 0 or size + kept[0] > budget


def test_a_long_prompt_keeps_its_last_targets_only(monkeypatch):
    monkeypatch.setattr(pack, "MATRIX_BYTES", 4 * 9)
    document = documents.influence()
    packed = pack.influence(document)["matrix"]
    assert packed["queries"] == [3, 4]
    np.testing.assert_allclose(unpack(packed), document["matrix"][3][:4] + document["matrix"][4], rtol=1e-6)


@pytest.mark.parametrize("spelling", [[0xE2, 0x96], "e296"])
def test_bytes_are_read_as_numbers_and_as_digits(spelling):
    shown = pack.token({"id": 5, "text": "\ufffd", "bytes": spelling})
    assert shown["bytes"] == "E2 96"
    assert shown["runs"] == ["", "‹E2 96›"]


def test_every_string_is_cleaned_at_any_depth():
    document = documents.influence(documents.HOSTILE)
    document["warnings"] = ["look: \u202e"]
    document["model"]["source"] = "/models/\udcff/x\x1b"
    text = json.dumps([pack.influence(document), pack.facts(document)], ensure_ascii=False)
    text.encode("utf-8")
    assert not set(text) & set("\u202e\u202c\x1b\x00\u2028\ud83d\udcff")


def test_the_record_and_its_document_are_packed_alike(influence, lens):
    packed = pack.influence(influence.to_json())
    np.testing.assert_allclose(unpack(packed["scores"]), influence.scores, rtol=1e-6)
    assert [token["id"] for token in packed["tokens"]] == [token.id for token in influence.tokens]
    points = pack.lens(lens.to_json())["points"]
    assert [point["rank"] for point in points] == [reading.target_rank for reading in lens.layers]
