"""Weights of 8 bits, multiplied as whole numbers by what is rounded as it comes: ONNX Runtime's dynamic quantisation, and what its optimiser makes
of it. Held to ONNX's own rounding, as its reference implementation has it, and to the numbers that stand in the file.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")

import onnx
from onnx import helper, numpy_helper

import llmtrace
from llmtrace.families import spec_of
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.verify import verify
from llmtrace.testing.tiny import TINY
from tests.backends.onnxruntime.opening import differences, open_graph, write
from tests.backends.onnxruntime.reading.opened import error, violated
from tests.backends.onnxruntime.test_renaming import hold_the_same
from tests.backends.onnxruntime.written import TOKENS, drawn

KINDS = {
    "int8": {}, "uint8": {"unsigned": True}, "a scale a column": {"per_channel": True},
    "half the range": {"unsigned": True, "per_channel": True, "reduce_range": True},
}  # fmt: skip


def quantised(path, out, unsigned=False, **options):
    """By ONNX Runtime's own tool."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    out.mkdir()
    kind = QuantType.QUInt8 if unsigned else QuantType.QInt8
    quantize_dynamic(path, out / "model.onnx", weight_type=kind, **options)
    return out / "model.onnx"


@pytest.fixture(scope="module")
def sources():
    return {family: drawn(spec_of({"model_type": family, **TINY[family]})) for family in ("llama", "gpt2", "olmo2")}


@pytest.fixture(scope="module")
def written(sources, tmp_path_factory):
    place = tmp_path_factory.mktemp("written")
    return {family: write(source, place / family) for family, source in sources.items()}


def in_file(path):
    """The matrices of 8 bits [in, out] of a file as what they stand for, whatever scale they have."""
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    for name, levels in held.items():
        if name.endswith("_quantized"):
            zero, scale = (held[f"{name.removesuffix('_quantized')}_{part}"] for part in ("zero_point", "scale"))
            yield (levels.astype(np.float32) - zero.astype(np.float32)) * scale


def rounded(x):
    """What `DynamicQuantizeLinear` makes of rows, by ONNX's reference implementation, as floats."""
    from onnx.reference import ReferenceEvaluator

    made = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    model = helper.make_model(
        helper.make_graph([made], "g", [onnx.ValueInfoProto(name="x")], [onnx.ValueInfoProto(name=n) for n in "ysz"])
    )
    levels, scale, zero = ReferenceEvaluator(model).run(None, {"x": x})
    return (levels.astype(np.float32) - np.float32(zero)) * scale


@pytest.mark.parametrize(("family", "kind"), [("llama", "int8"), *(("gpt2", kind) for kind in KINDS)])
def test_weights_are_those_of_the_file_under_the_schema_s_names(family, kind, written, sources, tmp_path):
    path = quantised(written[family], tmp_path / "out", **KINDS[kind])
    with open_graph(path) as model:
        source = sources[family]
        assert [
            each
            for each in differences(model.spec, source.spec)
            if "family" not in each and "tied" not in each and "context" not in each
        ] == []
        assert not violated(model)
        stands = list(in_file(path))
        for name in ("embed.W_E", "blocks.1.mlp.W_out", "unembed.W_U"):
            assert any(np.array_equal(model.weights[name], each) for one in stands for each in (one, one.T)), name
            assert 1e-4 < error(model.weights[name], source.weights[name]) < 0.02
        assert model.session.stored["blocks.0.attn.W_Q"] == ("uint8" if KINDS[kind].get("unsigned") else "int8")
        assert model.session.stored["ln_final.w"] == "float32"


@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_a_product_is_that_of_the_rounded_row_and_verify_knows_by_how_much(preset, written, tmp_path):
    path = quantised(written["llama"], tmp_path / "out", reduce_range=preset == "shipped")  # no sum of which saturates
    with open_graph(path, preset) as model:
        trace = model.trace(list(TOKENS))
        errors = {each.site: each for each in model.verify(list(TOKENS))}
        assert {each.status for each in errors.values()} == {"holds"}
        for reads, at, letter, makes in [
            ("blocks.1.ln2.out", "blocks.1.mlp", "gate", "blocks.1.mlp.pre"),
            ("blocks.1.mlp.post", "blocks.1.mlp", "out", "blocks.1.mlp.out"),
            ("ln_final.out", "unembed", "U", "logits"),
        ]:
            matrix, bias = model.weights[f"{at}.W_{letter}"], model.weights.get(f"{at}.b_{letter}", 0)
            assert error(trace[makes].array, rounded(trace[reads].array) @ matrix + bias) < 1e-5
            off = error(trace[makes].array, trace[reads].array @ matrix + bias)
            assert 1e-3 < off < errors[makes].tolerance < 10 * off
            assert trace[makes].precision.operands == "uint8_tensor"
        assert errors["blocks.1.attn.pattern"].tolerance < 1e-4  # nothing is rounded there
        assert trace["blocks.1.attn.pattern"].precision.operands == ""


def test_a_product_that_is_off_by_more_than_rounding_is_found(written, tmp_path):
    with open_graph(quantised(written["llama"], tmp_path / "out")) as model:
        trace, site = model.trace(list(TOKENS)), "blocks.1.mlp.out"
        signals = {name: trace[name].array for name in trace.signals}
        signals |= {"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
        kinds = {name: trace[name].precision for name in trace.signals}
        equations = Equations(model.spec, model.weights)
        for factor, status in ((1.0, "holds"), (1.2, "violated")):
            wrong = signals | {site: factor * signals[site]}
            assert [each.status for each in verify(equations, wrong, kinds, {site})] == [status]


@pytest.mark.parametrize(
    ("family", "level"), [("llama", "ALL"), ("gpt2", "EXTENDED"), ("olmo2", "BASIC"), ("olmo2", "ALL")]
)
def test_what_the_optimiser_makes_of_it_is_the_same_model(family, level, written, tmp_path):
    """It fuses products, their scales and biases; folds scales; and widens a row once for each that reads it."""
    path = quantised(written[family], tmp_path / "plain")
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    (tmp_path / "fused").mkdir()
    options.optimized_model_filepath = str(tmp_path / "fused" / "model.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with open_graph(path) as plain, open_graph(tmp_path / "fused" / "model.onnx") as fused:
        assert [
            each for each in differences(fused.spec, plain.spec) if "tied" not in each
        ] == []  # a transposed table is a copy
        assert not violated(fused)
        edits = [llmtrace.ablate("embed", tokens=[3]), llmtrace.ablate("blocks.1.attn.z", heads=[1])]
        for more in ([], edits):
            found, wanted = (
                each.trace(list(TOKENS), capture="logits", edits=more)["logits"].array for each in (fused, plain)
            )
            assert error(found, wanted) < 0.01  # another order of sums may move a number to the next level
        assert all(error(fused.weights[name], array) < 1e-6 for name, array in plain.weights.items())


def test_an_edited_run_rounds_as_any_other(written, tmp_path):
    with open_graph(quantised(written["llama"], tmp_path / "out")) as model:
        bare = model.trace(list(TOKENS))
        edited = model.trace(list(TOKENS), edits=[llmtrace.ablate("blocks.1.attn.z", heads=[0])])
        before = [site for site in bare.signals if site.startswith("blocks.0.")]
        assert len(before) > 15
        assert max(error(edited[site].array, bare[site].array) for site in before) == 0
        rows, matrix = edited["blocks.1.mlp.post"].array, model.weights["blocks.1.mlp.W_out"]
        wanted = rounded(rows) @ matrix + model.weights.get("blocks.1.mlp.b_out", 0)
        assert error(edited["blocks.1.mlp.out"].array, wanted) < 1e-5
        assert error(edited["blocks.1.mlp.out"].array, bare["blocks.1.mlp.out"].array) > 1e-2


def test_its_names_do_not_matter(written, tmp_path):
    path = quantised(written["gpt2"], tmp_path / "plain")
    with open_graph(path) as model:
        hold_the_same(model, path, tmp_path / "renamed")


@pytest.mark.parametrize("style", ["one scale", "a scale a column", "blocks"])
def test_weights_alone_may_be_whole_numbers_that_the_graph_scales(style, written, sources, tmp_path):
    """`DequantizeLinear` before a product: nothing else is rounded, so nothing more is allowed."""
    held = {}

    def change(graph):
        for node in list(graph.node):
            name = node.input[1] if node.op_type == "MatMul" else ""
            tensor = next((each for each in graph.initializer if each.name == name), None)
            if tensor is None:
                continue
            array = numpy_helper.to_array(tensor)
            split = {
                "one scale": array.reshape(1, -1),
                "a scale a column": array.T,
                "blocks": array.reshape(-1, 16, array.shape[1]).swapaxes(1, 2).reshape(-1, 16),
            }[style]
            scale = np.abs(split).max(1) / np.float32(127)
            shape = {"one scale": (), "a scale a column": (-1,), "blocks": (-1, array.shape[1])}[style]
            scale = scale.reshape(shape)
            wide = np.repeat(scale, 16, 0) if style == "blocks" else scale
            levels = np.rint(array / wide).astype(np.int8)
            held[name] = levels.astype(np.float32) * wide
            graph.initializer.remove(tensor)
            graph.initializer.extend(
                [numpy_helper.from_array(levels, f"{name} levels"), numpy_helper.from_array(scale, f"{name} scale")]
            )
            more = {"block_size": 16, "axis": 0} if style == "blocks" else {"axis": 1}
            graph.node.insert(
                0, helper.make_node("DequantizeLinear", [f"{name} levels", f"{name} scale"], [name], **more)
            )

    proto = onnx.load(written["llama"])
    change(proto.graph)
    if style == "blocks":
        del proto.opset_import[:]
        proto.opset_import.append(helper.make_opsetid("", 21))
        for node in proto.graph.node:  # the one operator of these that newer sets spell otherwise
            if node.op_type == "ReduceMean":
                axes = next(each for each in node.attribute if each.name == "axes")
                proto.graph.initializer.append(numpy_helper.from_array(np.array(axes.ints), f"{node.output[0]} axes"))
                node.input.append(f"{node.output[0]} axes")
                node.attribute.remove(axes)
        proto.ir_version = 10
    (tmp_path / "out").mkdir()
    onnx.save(proto, tmp_path / "out" / "model.onnx")
    with open_graph(tmp_path / "out" / "model.onnx") as model:
        assert not violated(model)
        assert any(np.array_equal(model.weights["blocks.1.mlp.W_out"], each) for each in held.values())
        assert 1e-4 < error(model.weights["blocks.1.mlp.W_out"], sources["llama"].weights["blocks.1.mlp.W_out"]) < 0.02
        assert model.session.stored["blocks.1.mlp.W_out"] == "int8"
        assert all(each.tolerance < 1e-4 for each in model.verify(list(TOKENS)))
