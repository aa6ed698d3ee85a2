"""A few cells of the matrix, as they are measured for the page: what is found is all there is, and what differs is named."""

from __future__ import annotations

import json

import pytest

for needed in ("torch", "transformers", "onnx", "onnxruntime", "llmtrace_onnxruntime"):
    pytest.importorskip(needed)

import onnx
from onnx import numpy_helper

from llmtrace.families import spec_of
from llmtrace.testing.tiny import TINY
from tests.backends.onnxruntime.exports import export
from tests.backends.onnxruntime.matrix.__main__ import main
from tests.backends.onnxruntime.matrix.cell import Cell, append, read
from tests.backends.onnxruntime.matrix.measure import Known, known, measure
from tests.backends.onnxruntime.matrix.page import page, share


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


@pytest.mark.parametrize(
    ("exporter", "architecture", "derived"),
    [
        ("torchscript-sdpa", "gpt2", 0),
        ("torchscript+extended", "opt", 3),
        ("torchscript+extended", "granite", 6),
        ("torchscript+extended", "starcoder2", 3),
    ],
)
def test_every_site_of_a_cell_is_located_and_equal(exporter, architecture, derived, directory):
    cell = measure(exporter, architecture, directory, known(architecture, directory))
    assert (cell.status, cell.differs, cell.missed, cell.unequal) == ("measured", (), {}, {})
    assert (cell.equal, cell.derived) == (cell.applicable, derived)
    assert 0 < cell.worst < 1e-5


def test_what_a_graph_lost_is_named_and_its_sites_are_held_to_what_is_left(directory):
    path = export("torchscript", "mistral", directory)
    model = onnx.load(path)
    taken_off = {name for node in model.graph.node if node.op_type == "Sub" for name in node.input}
    found = [
        each for node in model.graph.node for each in node.attribute
        if each.name == "value" and node.output[0] in taken_off and _whole(each.t) == 5
    ]  # fmt: skip
    for each in found:  # how far back a query sees
        each.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each.t) + 4))
    assert found
    onnx.save(model, path)
    cell = measure("torchscript", "mistral", directory, known("mistral", directory))
    assert cell.differs == ("blocks.*.attn.window 5 → 9",)
    assert cell.equal == cell.applicable


def _whole(tensor):
    array = numpy_helper.to_array(tensor)
    return int(array.reshape(())) if array.size == 1 and array.dtype.kind == "i" else 0


def test_a_wrong_weight_is_unequal(directory):
    path = export("torchscript", "gpt_neox", directory)
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if len(each.dims) == 2 and each.dims[0] != 97)
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(array * 1.001, weight.name))
    onnx.save(model, path)
    cell = measure("torchscript", "gpt_neox", directory, known("gpt_neox", directory))
    assert 0 < cell.equal < cell.applicable
    assert min(cell.unequal.values()) > 1e-5


def test_what_cannot_be_made_or_run_is_kept_with_the_reason(directory):
    by_torch = Known(spec_of({"model_type": "cohere", **TINY["cohere"]}), {}, {})
    for architecture, status, why in (("glm4", "not exported", "same rank"), ("cohere", "refused", "broadcast")):
        cell = measure("torchscript", architecture, directory, by_torch)
        assert (cell.status, cell.applicable) == (status, 0)
        assert why in cell.why
        assert str(directory) not in cell.why


def test_cells_are_kept_and_not_measured_again(directory, capsys, monkeypatch):
    kept = directory / "matrix.jsonl"
    one = Cell("torchscript", "llama", "measured", applicable=4, captured=3, derived=1, equal=4, worst=1e-7)
    append(kept, [one, Cell("dynamo-18", "llama", "refused", "no")])
    assert read(kept)["torchscript", "llama"] == one
    monkeypatch.setattr("tests.backends.onnxruntime.matrix.__main__.measure", lambda *_: pytest.fail("measured again"))
    written = directory / "page.md"
    assert main(["torchscript", "dynamo-18", "--arch", "llama", "--from", str(directory), "--write", str(written)]) == 0
    assert capsys.readouterr().out == ""
    text = written.read_text(encoding="utf-8")
    assert "| llama | 4/4 1e-7 d1 | ✗ |" in text
    assert "| torchscript | 1 of 1 | 4 | 3 | 1 | 4 | 100.0 % |" in text
    assert json.loads(kept.read_text(encoding="utf-8").splitlines()[0])["equal"] == 4


def test_too_little_that_is_equal_is_bad_news(directory, tmp_path):
    append(tmp_path / "matrix.jsonl", [Cell("torchscript", "llama", "measured", applicable=20, captured=20, equal=18)])
    assert main(["torchscript", "--arch", "llama", "--from", str(tmp_path)]) == 1
    assert share([]) == 1


def test_the_page_names_what_differs_what_is_missed_and_what_does_not_run():
    cells = [
        Cell("torchscript", "llama", "measured", applicable=9, captured=7, equal=6, worst=2e-7, missed={"blocks.1.attn.q": "lost"},
             differs=("blocks.*.attn.window 5 → none",), unequal={"logits": 0.5}),
        Cell("torchscript", "glm4", "not exported", "refuses rank"),
        Cell("torchscript", "cohere", "refused", "ONNX Runtime stopped while it ran …/torchscript/cohere/model.onnx: broken"),
        Cell("genai-int4", "llama", "measured", applicable=9, captured=9, equal=9),
    ]  # fmt: skip
    text = page(cells, ["torchscript", "genai-int4"])
    assert "| llama | 6/9 2e-7 ≠ window | 9/9 coarse |" in text
    assert "* `blocks.L.attn.window 5 → none`: llama (torchscript)" in text
    assert "* `blocks.L.attn.q`, since lost: llama (torchscript)" in text
    assert "* `logits`: llama (torchscript)" in text
    assert "* refuses rank: glm4 (torchscript)" in text
    assert "the graph: broken: cohere (torchscript)" in text
