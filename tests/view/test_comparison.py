"""The report of a comparison as a file: what it carries is the document, what it says without JavaScript, what it is called."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import llmtrace
from llmtrace.data import embedded
from llmtrace.errors import OptionError, TraceFileError
from llmtrace.view.comparison import comparison_page, labels, save_comparison_page
from tests.view.comparisons import comparison
from tests.view.documents import HOSTILE
from tests.view.test_page import content, read

SAME = "reference:builtin:induction"


def unpack(grid):
    return np.frombuffer(base64.b64decode(grid["data"]), dtype="<f4")


def test_the_page_carries_the_document_s_numbers():
    document = comparison(names=("a.gguf", "b.onnx")).to_json()
    packed = content(comparison_page(document))
    for there, here in zip(packed["candidates"], document["candidates"], strict=True):
        assert there["outputs"] == here["outputs"]
        assert there["spread"] == here["spread"]
        assert there["divergences"] == here["divergences"]
        assert [{key: each[key] for key in here["sites"][0]} | {"status": ""} for each in there["sites"]] == [
            each | {"status": ""} for each in here["sites"]
        ]
        for strip, each in zip(there["strips"], here["by_token"], strict=True):
            assert (strip["site"], strip["prompt"]) == (each["site"], each["prompt"])
            np.testing.assert_allclose(unpack(strip["local"]), each["local_errors"], rtol=1e-6)
            np.testing.assert_allclose(unpack(strip["inherited"]), each["inherited_errors"], rtol=1e-6)
    for there, here in zip(packed["norms"], document["norms"], strict=True):
        np.testing.assert_allclose(unpack(there["norms"]), here["norms"], rtol=1e-6)


def test_these_documents_are_such_as_json_prints():
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "compare.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(comparison(names=("a.gguf", "b.onnx")).to_json())


def test_what_is_beyond_rounding_and_no_fault_is_explained_by_the_weights():
    sites = content(comparison_page(comparison().to_json()))["candidates"][0]["sites"]
    status = {each["site"]: each["status"] for each in sites}
    assert status["blocks.1.attn.v"] == "violated"
    assert {status[f"blocks.{layer}.mlp.out"] for layer in range(4)} == {"explained"}
    assert status["blocks.0.attn.v"] == "holds"
    assert {(each["kind"], each["layer"]) for each in sites if each["site"] in ("blocks.2.attn.q", "logits")} == {
        ("attn.q", 2),
        ("logits", None),
    }


def test_null_among_tokens_is_infinite():
    document = comparison().to_json()
    document["candidates"][0]["by_token"][0]["local_errors"][1] = None
    assert unpack(content(comparison_page(document))["candidates"][0]["strips"][0]["local"])[1] == np.inf


def test_the_file_nests_names_no_address_and_holds_hostile_texts_as_text():
    made = comparison(prompts=(HOSTILE, HOSTILE), names=("</script><b>",), headline="</title><img src=x>")
    reader = read(comparison_page(made.to_json()))
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("script") == 2
    assert not {"img", "b", "link", "iframe"} & set(tags)
    assert not {"src", "href"} & {name for _, attributes in reader.elements for name in attributes}


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["/a/x.gguf", "/b/y.onnx"], ["x.gguf", "y.onnx"]),
        (["/a/x", "/b/x", "/c/z"], ["a/x", "b/x", "z"]),
        (["x", "/b/x"], ["x", "b/x"]),
        (["builtin:induction", "builtin:induction"], ["one:builtin:induction", "two:builtin:induction"]),
    ],
)
def test_models_are_called_by_as_much_as_tells_them_apart(sources, names):
    backends = ("one", "two", "three")
    assert (
        labels([{"model": source, "backend": backend} for source, backend in zip(sources, backends, strict=False)])
        == names
    )


def test_the_same_model_twice_is_told_by_number():
    assert labels([{"model": "a/x", "backend": "torch"}] * 2) == ["torch:x (1)", "torch:x (2)"]


def test_weights_alone_have_no_page():
    from llmtrace.comparison.weights_only import compare_weights_only

    with pytest.raises(OptionError, match="no page of weights alone"):
        comparison_page(compare_weights_only(SAME, SAME).to_json())


def test_a_comparison_saves_its_page_and_an_old_one_survives_a_failure(tmp_path, monkeypatch):
    directory = tmp_path / "other"
    shutil.copytree(embedded("induction"), directory)
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 0.3'))
    found = llmtrace.compare(SAME, f"reference:{directory}", prompts=["a f e b a f", "a b"])
    assert found.verdict == "diverges"
    found.save_html(tmp_path / "report.html")
    packed = content((tmp_path / "report.html").read_text("utf-8"))
    assert [each["name"] for each in packed["prompts"]] == ["prompt 1", "prompt 2"]
    assert packed["candidates"][0]["first_divergence"] == found.to_json()["candidates"][0]["first_divergence"]
    with pytest.raises(TraceFileError, match="there is no directory"):
        save_comparison_page(tmp_path / "none" / "a.html", found.to_json())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    before = (tmp_path / "report.html").read_text("utf-8")
    with pytest.raises(TraceFileError, match="No space left"):
        found.save_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == before
