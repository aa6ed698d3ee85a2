"""What tests of budgets share: checkpoints whose tensors are made others, budgets of them, and what transformers and PyTorch say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.testing.model import tiny_model

PROMPTS = [[5, 17, 3, 88, 41, 41, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [90, 13, 13]]
TEXT = [(place * 37 + place**2) % 97 for place in range(40)]
BAD = {
    "model.layers.0.mlp.down_proj.weight": "blocks.0.mlp.W_out",
    "model.layers.1.self_attn.v_proj.weight": "blocks.1.attn.W_V",
    "model.layers.2.self_attn.o_proj.weight": "blocks.2.attn.W_O",
}


def rounded(tensor, bits):
    """As a format of blocks of 16 with a scale each would have it."""
    blocks = tensor.reshape(-1, 16)
    steps = np.abs(blocks).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(blocks / steps) * steps).reshape(tensor.shape).astype(np.float32)


def copied(source: Path, directory: Path, change) -> Path:
    """A checkpoint whose tensors are `change(name, tensor)`."""
    directory.mkdir()
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    tensors = {name: change(name, tensor) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    return directory


def opens(backend, directory):
    if backend == "torch":
        pytest.importorskip("torch")
        return llmtrace.open(directory, backend="torch", preset="exact")
    return llmtrace.open(directory, backend=backend)


def made(backend, one, other, **settings):
    with opens(backend, one) as reference, opens(backend, other) as candidate:
        before = reference.trace(PROMPTS[0], capture="logits")["logits"].array
        found = llmtrace.compare(reference, candidate, prompts=PROMPTS, budget=True, **settings).candidates[0].budget
        np.testing.assert_array_equal(reference.trace(PROMPTS[0], capture="logits")["logits"].array, before)
    return found


def logits_of(directory, changed, ids):
    """By transformers, of the model with some of its tensors taken from elsewhere."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in changed.items():
            dict(model.named_parameters())[name].copy_(torch.from_numpy(tensor))
        return [model(torch.tensor([each])).logits[0].double() for each in ids]


def kl_of(ours, theirs):
    torch = pytest.importorskip("torch")
    p, q = (torch.cat(list(each)).log_softmax(-1) for each in (ours, theirs))
    return float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean"))


def tiny(directory: Path) -> Path:
    """A Llama of three blocks."""
    tiny_model("llama", directory)
    return directory


def in_few_bits(source: Path, directory: Path) -> Path:
    """In 7 bits, three tensors in 3."""

    def change(name, tensor):
        return tensor if tensor.ndim < 2 else rounded(tensor, 3 if name in BAD else 7)

    return copied(source, directory, change)
