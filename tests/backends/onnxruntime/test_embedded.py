"""The embedded model as an ONNX file. The oracles are the core's directory and its tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from llmtrace.data import DEMO, DEMO_MODEL, EMBEDDED, embedded
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace.tokenizer import open_tokenizer
from llmtrace_onnxruntime.embedded import DATA, file_of, write
from tests.backends.onnxruntime.written import computed, expected, off


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_files_are_what_the_core_s_directory_becomes_to_the_byte(name, tmp_path):
    write(name, tmp_path)
    ours = {path.name: path.read_bytes() for path in (DATA / name).iterdir()}
    assert ours == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sum(map(len, ours.values())) < 1_000_000


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_tokenizer_is_the_core_s(name):
    assert (DATA / name / "tokenizer.json").read_bytes() == (embedded(name) / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_weights_are_among_the_graph_s_to_the_bit(name):
    held = [onnx.numpy_helper.to_array(each) for each in onnx.load(DATA / name / "model.onnx").graph.initializer]
    core = open_checkpoint(embedded(name)).weights
    flat = {array.astype(np.float32).tobytes() for array in held}
    for weight in ("embed.W_E", "unembed.W_U", "blocks.0.mlp.W_in", "blocks.1.mlp.W_out", "ln_final.w"):
        assert np.ascontiguousarray(core[weight], np.float32).tobytes() in flat, weight


def test_onnx_runtime_continues_the_demo_s_prompt():
    tokenizer, _ = open_tokenizer(embedded("induction"))
    ids, core = tokenizer.encode(DEMO.prompt), open_checkpoint(embedded("induction"))
    found = computed(file_of(DEMO_MODEL), ids)
    assert tokenizer.token(int(found[-1].argmax())).text == DEMO.answer
    assert off(found, expected(core.spec, core.weights, ids)) < 1e-5


def test_the_package_has_no_model_that_the_core_has_not():
    assert {path.name for path in DATA.iterdir()} == set(EMBEDDED)


@pytest.mark.parametrize(
    "source", ["induction", "builtin:", "builtin:inductoin", "builtin:../data/induction", "builtin:*", "x\0y", ""]
)
def test_only_an_embedded_model_s_name_has_a_file(source):
    assert file_of(source) is None
