"""What is known of an open graph: where its context comes from, what its weights are stored in, and how finely signals are rounded."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.dataflow.reading.reader import probe_prompt
from llmtrace.errors import ModelOpenError, PromptError
from llmtrace.families import spec_of
from llmtrace.testing.tiny import TINY
from llmtrace_onnxruntime.open import PROBE, _context, _family, _moved
from llmtrace_onnxruntime.writing import stored
from llmtrace_onnxruntime.writing.stored import is_large
from tests.backends.onnxruntime.opening import open_graph, unequal, write
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS, drawn, expected, off

BASE = FEATURES["nothing else"]


@pytest.mark.parametrize("kind", ["float16", "int4"])
@pytest.mark.parametrize(("style", "family"), [("plain", "llama"), ("fused", "gemma")])
def test_weights_are_those_that_the_file_computes_with(kind, style, family, tmp_path):
    source = drawn(spec_of({"model_type": family, **TINY[family]}))
    with open_graph(write(source, tmp_path, style, kind)) as model:
        assert model.spec == source.spec
        wanted = stored(source, kind)
        found = {name: array.astype(np.float32) for name, array in model.weights.items()}
        if kind == "int4":  # a level times its scale
            assert not [
                name for name, array in wanted.items() if not np.allclose(found[name], array, rtol=1e-6, atol=1e-7)
            ]
        else:
            assert not unequal(found, dict(wanted))
        types = model.session.stored
        assert set(types) == set(wanted)
        for name, each in types.items():
            assert each == ("float16" if kind == "float16" else "int4" if is_large(name) else "float32"), name
        assert model.info.weights == ("float16" if kind == "float16" else "float32, int4")
        logits = model.trace(list(TOKENS), capture=["logits"])["logits"].array
        assert off(logits, expected(model.spec, found)) < (2e-2 if kind == "float16" else 1e-5)
        assert model.session.offers["blocks.0.mlp.post"].dtype == ("float16" if kind == "float16" else "float32")
        assert not [each for each in model.verify(list(TOKENS)) if each.status == "violated"]


def test_bfloat16_weights_are_known_as_such(tmp_path):
    """They are widened as soon as they are read."""
    from ml_dtypes import bfloat16
    from onnx import helper, numpy_helper

    held = {}

    def narrow(graph):
        for place, tensor in enumerate(list(graph.initializer)):
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.ndim == 2:
                held[tensor.name] = array.astype(bfloat16)
                graph.initializer.append(numpy_helper.from_array(held[tensor.name], f"narrow {place}"))
                graph.node.insert(
                    0, helper.make_node("Cast", [f"narrow {place}"], [tensor.name], to=onnx.TensorProto.FLOAT)
                )
        kept = [tensor for tensor in graph.initializer if tensor.name not in held]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    source = drawn(BASE)
    with open_graph(write(source, tmp_path, change=narrow)) as model:
        assert model.spec == BASE
        assert model.session.stored["blocks.1.mlp.W_in"] == model.session.stored["embed.W_E"] == "bfloat16"
        assert model.session.stored["blocks.1.ln1.w"] == "float32"
        wanted = {
            name: array.astype(bfloat16).astype(np.float32) if is_large(name) else array
            for name, array in source.weights.items()
        }
        assert not unequal(dict(model.weights), wanted)


def test_a_prompt_is_as_long_as_a_file_beside_the_graph_says(tmp_path):
    path = write(drawn(BASE), tmp_path)
    with open_graph(path) as model:
        assert model.spec.context == 32
        with pytest.raises(PromptError, match="32"):
            model.trace([1] * 33)
    (tmp_path / "config.json").unlink()
    with open_graph(path) as model:
        assert (model.spec.family, model.spec.context) == ("onnx", None)
        assert model.spec.blocks == BASE.blocks
        model.trace([1] * 33, capture=["logits"])


@pytest.mark.parametrize(
    ("config", "genai", "context"),
    [
        ({"max_position_embeddings": 8, "n_positions": 9}, {}, 8),
        ({"n_positions": 9}, {"model": {"context_length": 7}}, 7),
        ({"n_positions": 9}, {}, 9),
        ({"max_position_embeddings": True}, {"model": {"context_length": "7"}}, None),
        ({"max_position_embeddings": -1}, {}, None),
        ({}, {}, None),
    ],
)
def test_the_context_is_a_number_that_makes_sense(config, genai, context):
    assert _context(config, genai) == context


def test_the_family_is_what_a_file_beside_the_graph_calls_it():
    assert _family({"model_type": "llama"}, {"model": {"type": "phi"}}) == "llama"
    assert _family({}, {"model": {"type": "phi"}}) == "phi"
    assert _family({"model_type": 3}, {}) == _family({}, {}) == "onnx"


def test_positions_that_are_learned_bound_the_context(tmp_path):
    spec = FEATURES["learned positions from two"]
    with open_graph(write(drawn(spec), tmp_path)) as model:
        assert model.spec.context == 32
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "max_position_embeddings": 500}))
    with open_graph(tmp_path / "model.onnx") as model:
        assert (model.spec.context, model.spec.positions.length, model.spec.positions.offset) == (32, 34, 2)


def test_a_probe_has_tokens_from_all_over_the_vocabulary_and_one_twice():
    prompt = probe_prompt(97, PROBE)
    assert len(prompt) == PROBE
    assert 0 <= min(prompt) < 20
    assert 77 < max(prompt) < 97
    assert prompt[-2] == prompt[1]
    assert probe_prompt(1, PROBE) == [0] * PROBE
    assert probe_prompt(97, PROBE, 8)[:PROBE] == prompt, "a longer one begins with it"


def test_what_capture_moves_is_stated_with_room_and_nothing_is_nothing():
    bare = np.array([1.0, -2.0], np.float32)
    assert _moved(bare, bare.copy()) == 0
    assert _moved(bare, bare + np.float32(1e-3)) == pytest.approx(8 * 1e-3 / 2, rel=1e-3)


def test_half_precision_is_said_of_what_has_been_through_it(tmp_path):
    with open_graph(write(drawn(BASE), tmp_path, kind="float16")) as model:
        storage = {site: offer.precision.storage for site, offer in model.session.offers.items()}
        wide = {site for site, kind in storage.items() if kind != "float16"}
        assert wide == {"blocks.0.attn.pattern", "blocks.1.attn.pattern"}, "a softmax is computed in float32"
        provenance = {site.rpartition(".")[2]: offer.provenance for site, offer in model.session.offers.items()}
        assert provenance["scores"].detail == "masked scores as -inf"
        assert provenance["q"].detail == "columns of a product, heads split"
        assert provenance["resid_post"].kind == "captured"


@pytest.mark.parametrize("number", [np.nan, 0.0])
def test_damaged_weights_are_an_error_that_names_the_file_and_what_to_do(number, tmp_path):
    path = write(drawn(BASE), tmp_path)
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) and tensor.data_type == onnx.TensorProto.FLOAT:
            array = np.full(tuple(tensor.dims), number, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, path)
    with pytest.raises(ModelOpenError, match=re.escape(str(path))) as caught:
        open_graph(path)
    assert "again" in str(caught.value) if np.isnan(number) else "another exporter" in str(caught.value)
