"""Documents are strict JSON with every promised field; tables need a library and say so."""

from __future__ import annotations

import importlib
import json

import attrs
import numpy as np
import pytest

from llmtrace.documents import token_document
from llmtrace.errors import OptionError
from llmtrace.influence import Contract, Influence, influence, lens
from llmtrace.influence.document import dataframe, influence_document, lens_document
from llmtrace.trace import ModelInfo, Token

METHODS = ("attention", "rollout", "alti", "dla")


def strict(document):
    """Through text and back; NaN and infinity are errors, and so is anything that JSON has no type for."""
    return json.loads(json.dumps(document, allow_nan=False))


def test_an_influence_document_has_every_field_of_the_record_and_is_strict(hand):
    for found in influence(hand, "a b c d a b", METHODS, foil="f"):
        aims = found.method == "dla"
        document = strict(found.to_json())
        assert set(document) == {field.name for field in attrs.fields(Influence)}
        assert document["tokens"][0] == {"id": 0, "text": "<bos>"}
        assert document["target"] == {"id": 3, "text": "c"}
        assert document["foil"] == ({"id": 6, "text": "f"} if aims else None)
        assert document["aims"] is aims
        standing = found.target_standing
        assert document["target_standing"] == document["predicted_standing"]
        assert document["target_standing"] == {"probability": standing.probability, "rank": 1, "ranks": [1, 1]}
        assert document["position"] == 6
        assert document["scores"] == found.scores.tolist()
        assert (document["completeness_gap"] is None) == (found.method == "attention")
        assert np.array_equal(document["matrix"], found.matrix)
        assert set(document["contract"]) == {"output", "features", "process", "fixed", "unit"}
        assert document["model"]["backend"] == "reference"
        assert document["predictions"][6]["text"] == "c"


def test_what_is_undefined_is_null(hand):
    (found,) = influence(hand, "a b", ("attention",))
    induction = next(row for row in strict(found.to_json())["table"] if row["name"] == "induction")
    assert induction == {"name": "induction", "layer": 0, "head": 0, "score": None, "rows": 0, "chance": None}
    holed = attrs.evolve(
        found, heads=np.array([[0.5, np.nan], [np.inf, 1.0]]), notes=(("share", np.float64(0.5)), ("kind", "x"))
    )
    document = strict(influence_document(holed))
    assert document["heads"] == [[0.5, None], [None, 1.0]]
    assert document["notes"] == [{"name": "share", "value": 0.5}, {"name": "kind", "value": "x"}]


def test_a_token_that_is_no_text_alone_carries_its_bytes():
    assert strict(token_document(Token(7, "\ufffd", b"\xe2\x80"))) == {"id": 7, "text": "\ufffd", "bytes": [226, 128]}


def test_a_lens_document_has_what_the_command_promises(hand):
    found = lens(hand, "a b c d a b", top=2)
    document = strict(found.to_json())
    assert document["layers"][-1] == {
        "site": "blocks.1.resid_post",
        "top": [
            {"token": {"id": 3, "text": "c"}, "probability": found.layers[-1].top[0][1]},
            {"token": token_document(found.layers[-1].top[1][0]), "probability": found.layers[-1].top[1][1]},
        ],
        "target_rank": 1,
        "target_probability": found.layers[-1].top[0][1],
        "target_ranks": [1, 1],
    }
    assert (document["position"], document["target"]["text"], document["schema_version"]) == (6, "c", 1)
    assert lens_document(found) == found.to_json()
    assert "target rank 1" in repr(found)


@pytest.fixture
def small():
    """A record that needs no model."""
    contract = Contract("a", "b", "c", "d", "e")
    tokens = (Token(1, "a"), Token(2, "b"))
    return Influence(
        ModelInfo("s", "b", "r"), "m", contract, tokens, 1, Token(3, "c"), None, np.array([0.25, 0.75]), None
    )


def test_a_table_has_one_row_a_source_token(small):
    pytest.importorskip("pandas")
    assert small.to_dataframe().to_dict("list") == {
        "position": [0, 1],
        "id": [1, 2],
        "text": ["a", "b"],
        "score": [0.25, 0.75],
    }


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_without_its_library_a_table_says_how_to_get_it(small, library, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == library:
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr("llmtrace.influence.document.import_module", missing)
    with pytest.raises(OptionError, match=f"pip install {library}"):
        dataframe(small, library)


def test_other_libraries_are_refused(small):
    with pytest.raises(OptionError, match="pandas and of polars"):
        dataframe(small, "arrow")
