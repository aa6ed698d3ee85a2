"""The files of each case, as its commands name them: what a converter, an exporter or a program made of a checkpoint.

Each function writes into an empty directory, and says what its test wants to know besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import transformers
from attrs import evolve
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

import llmtrace
from tests.comparison.faults.bases import PROMPT
from tests.comparison.faults.patching import instead
from tests.comparison.golden.models import Model, copy_with, read, write_checkpoint

BAD = "blocks.1.mlp.W_out"
"""The tensor that case 8 squeezes."""
LETTERS = ["<bos>", *map(chr, range(33, 127)), "¡", "¢"]
FLAG = b"tokenizer.ggml.add_bos_token"


def accuracy_level(directory: Path) -> Path:
    """The graph of int4 weights with massive activations, whose products ask for level 4."""
    from tests.comparison.golden.massive import set_accuracy, write_massive

    path = write_massive(directory, "fused")
    set_accuracy(path, 4)
    return path


def optimiser(directory: Path) -> None:
    """The same, widened by the graph itself."""
    from tests.comparison.golden.massive import widen, write_massive

    widen(write_massive(directory, "onnx23"))


def rotary_base(directory: Path) -> None:
    """A GGUF file of a copy whose config has another base."""
    from llmtrace_llamacpp.writing import write_gguf

    def edit(config: dict[str, Any]) -> None:
        config["rope_parameters"]["rope_theta"] = 500_000.0

    copy = copy_with(write_checkpoint("llama", directory), "copy", edit)
    write_gguf(read(copy), directory / "model.gguf", "F16")


def softcap(directory: Path) -> None:
    """A graph of Gemma 2 without its cap."""
    from llmtrace_onnxruntime.writing import write_onnx

    write_onnx(read(write_checkpoint("gemma2", directory), softcap=None), directory / "model.onnx")


def window_lost(directory: Path) -> None:
    """A graph of Mistral without its window, and the file beside it that has it."""
    from llmtrace_onnxruntime.writing import write_onnx

    folder = directory / "genai"
    folder.mkdir()
    write_onnx(read(write_checkpoint("mistral", directory), window=None), folder / "model.onnx", "float32", "fused")
    decoder = {"filename": "model.onnx", "sliding_window": {"window_size": 5}}
    genai = {"model": {"type": "mistral", "context_length": 64, "decoder": decoder}}
    (folder / "genai_config.json").write_text(json.dumps(genai))


def permutation(directory: Path) -> None:
    """A GGUF file whose writer leaves the rows of q and k as they are."""
    from llmtrace_llamacpp import writing

    checkpoint = write_checkpoint("llama", directory)
    with mock.patch.object(writing, "turned", lambda array, heads, order: array):
        writing.write_gguf(read(checkpoint), directory / "model.gguf", "F16")


def bos(directory: Path) -> None:
    """A GGUF file with the flag unset, and the right one."""
    from llmtrace_llamacpp.writing import write_gguf

    checkpoint = write_checkpoint("llama", directory)
    _write_tokenizer(checkpoint)
    right = write_gguf(read(checkpoint), directory / "right.gguf", "F16", letters=LETTERS)
    data = bytearray(right.read_bytes())
    place = data.index(FLAG) + len(FLAG) + 4  # after the number of its type
    assert data[place] == 1
    data[place] = 0
    (directory / "model.gguf").write_bytes(data)


def bad_layer(directory: Path) -> tuple[Model, np.ndarray]:
    """A GGUF file of 8 bits, one tensor of which went through 3; the model, and that tensor."""
    from llmtrace_llamacpp.writing import write_gguf

    model = read(write_checkpoint("llama", directory))
    step = np.abs(model.weights[BAD]).max() / 3.5
    squeezed = (np.rint(model.weights[BAD] / step) * step).astype(np.float32)
    write_gguf(evolve(model, weights={**model.weights, BAD: squeezed}), directory / "model.gguf", "Q8_0")
    return model, squeezed


def long_prompts(directory: Path) -> None:
    """A graph of Mistral without its window."""
    from llmtrace_onnxruntime.writing import write_onnx

    write_onnx(read(write_checkpoint("mistral", directory), window=None), directory / "model.onnx")


def positions(directory: Path) -> None:
    """A trace of a program that counts from one."""
    with llmtrace.open(write_checkpoint("llama", directory), backend="torch") as model:
        rotary = model.session.model.base_model.rotary_emb
        instead(rotary, lambda run, x, position_ids: run(x, position_ids + 1))
        model.trace(PROMPT).save(directory / "phone.trace")


CASES: Mapping[int, Callable[[Path], object]] = dict(
    enumerate(
        [
            accuracy_level,
            optimiser,
            rotary_base,
            softcap,
            window_lost,
            permutation,
            bos,
            bad_layer,
            long_prompts,
            positions,
        ],
        1,
    )
)
"""By the numbers of the page."""


def _write_tokenizer(directory: Path) -> None:
    inner = Tokenizer(models.BPE({text: id for id, text in enumerate(LETTERS)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<bos>", special=True)])
    inner.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>").save_pretrained(directory)
