"""Weights in other files: what is damaged, and what leads out of the model's directory."""

from __future__ import annotations

import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from llmtrace.errors import ModelOpenError, UnsupportedModelError
from llmtrace_onnxruntime.inputs import inputs_of
from llmtrace_onnxruntime.options import PRESETS
from llmtrace_onnxruntime.proto import load
from llmtrace_onnxruntime.running import Runner
from tests.backends.onnxruntime import graphs
from tests.backends.onnxruntime.opening import TOKENS, logits_of

LINKS = pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need rights on this system")


# -- weights in other files


def test_missing_data_is_named_with_its_weight(parted):
    parted.with_name("model.onnx.data").unlink()
    with pytest.raises(ModelOpenError, match=r"the weight wte cannot be read: its file model\.onnx\.data is missing"):
        load(parted)


def test_short_data_is_named_with_its_weight(parted):
    data = parted.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(ModelOpenError, match=r"model\.onnx\.data ends at byte \d+, and it is from \d+ to \d+"):
        load(parted)


@pytest.mark.parametrize(
    "entries",
    [{"offset": 1 << 40}, {"offset": -1}, {"length": 5}, {"length": 1 << 62}, {"offset": "x"}, {"length": -1}],
)
def test_places_that_contradict_the_weight_are_refused(entries, parted):
    with pytest.raises(ModelOpenError, match="the weight wte cannot be read"):
        load(graphs.placed(parted, **entries))


@pytest.mark.parametrize("length", [-1, 1 << 40, 0, 98])
def test_shapes_that_contradict_the_data_are_refused(length, parted, single):
    for path in (parted, single):
        proto = onnx.load(path, load_external_data=False)
        proto.graph.initializer[0].dims[0] = length
        with pytest.raises(ModelOpenError, match="the weight wte cannot be read"):
            load(graphs.save(proto, path))


@pytest.mark.parametrize(
    "location", ["../elsewhere", "/etc/hostname", "", "a\0b", "..", ".", "sub/../../elsewhere", "//etc/hostname"]
)
def test_locations_that_lead_elsewhere_are_refused(location, parted):
    (parted.parent.parent / "elsewhere").write_bytes(parted.with_name("model.onnx.data").read_bytes())
    with pytest.raises(ModelOpenError, match="wte"):
        load(graphs.placed(parted, location=location))


@LINKS
@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder"])
def test_links_out_of_the_models_directory_are_refused(kind, parted):
    data, outside = parted.with_name("model.onnx.data"), parted.parent.parent / "secret" / "model.onnx.data"
    outside.parent.mkdir()
    data.rename(outside)
    if kind == "symlink":
        data.symlink_to(outside)
    elif kind == "hard link":
        data.hardlink_to(outside)
    else:
        (parted.parent / "sub").symlink_to(outside.parent)
        graphs.placed(parted, location="sub/model.onnx.data")
    with pytest.raises(UnsupportedModelError, match="wte"):
        load(parted)


@LINKS
def test_links_inside_of_it_are_followed(parted):
    data = parted.with_name("model.onnx.data")
    data.rename(parted.with_name("weights.bin"))
    data.symlink_to("weights.bin")
    assert np.allclose(logits_of(parted), graphs.computed(TOKENS)["logits"], atol=1e-5)


@LINKS
@pytest.mark.parametrize("folder", ["", "onnx"])
def test_the_cache_of_the_hub_is_opened(folder, parted, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / folder
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    up = "../" * (3 if folder else 2)
    for name, blob in (("model.onnx", "f00"), ("model.onnx.data", "ba4")):
        parted.with_name(name).rename(blobs / blob)
        (snapshot / name).symlink_to(f"{up}blobs/{blob}")
    for preset in PRESETS.values():
        loaded = load(snapshot / "model.onnx")
        inputs = inputs_of(loaded)
        logits = Runner(loaded, preset).run(inputs.arrays(TOKENS), [inputs.logits])[inputs.logits][0]
        assert np.allclose(logits, graphs.computed(TOKENS)["logits"], atol=1e-5)
    (tmp_path / "secret").write_bytes((blobs / "ba4").read_bytes())
    (snapshot / "model.onnx.data").unlink()
    (snapshot / "model.onnx.data").symlink_to(f"{up}secret")
    with pytest.raises(UnsupportedModelError, match="leads out of the model's directory"):
        load(snapshot / "model.onnx")
