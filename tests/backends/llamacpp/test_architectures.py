"""Every architecture of llama.cpp that a family of the core computes is opened; what is refused says why."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
import pytest

import llmtrace
from llmtrace.errors import UnsupportedModelError
from llmtrace.families import FAMILIES
from llmtrace.gguf_header import read_header
from llmtrace_llamacpp.architectures import ARCHITECTURES
from llmtrace_llamacpp.metadata import spec_of
from llmtrace_llamacpp.refused import NO_GRAPH, REASONS
from llmtrace_llamacpp.weights import open_gguf
from llmtrace_llamacpp.writing import ARCHITECTURE_OF
from tests.backends.llamacpp.kin import KIN
from tests.backends.llamacpp.tiny import MODELS, changed, off, write_gguf

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
NOT_IN_LLAMA_CPP = {"codegen", "gpt_neo", "helium", "ministral", "opt", "vaultgemma", "gptj"}
"""Families of the core that llama.cpp has no graph for."""


@pytest.fixture
def file(tmp_path):
    def write(architecture):
        family, overrides = KIN[architecture]
        return changed(family, **overrides), write_gguf(
            changed(family, **overrides), tmp_path / "tiny.gguf", architecture=architecture
        )

    return write


@pytest.mark.parametrize("architecture", KIN)
def test_llama_cpp_computes_what_the_family_does_under_another_name(file, architecture):
    model, path = file(architecture)
    assert read_header(path).architecture == architecture
    assert off(path, model.tokens) < 1e-6


@pytest.mark.parametrize("architecture", KIN)
@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_every_equation_holds(file, architecture, preset):
    with llmtrace.open(file(architecture)[1], backend="llamacpp", preset=preset, options={"guard": False}) as model:
        verdicts = model.verify(TOKENS)
        assert [(error.site, error.relative_error) for error in verdicts if error.status == "violated"] == []
        assert sum(error.status == "holds" for error in verdicts) > 10 * len(model.spec.blocks)


@pytest.mark.parametrize("architecture", KIN)
def test_weights_are_those_that_were_written(file, architecture):
    model, path = file(architecture)
    found = open_gguf(path)
    assert set(found.weights) == set(model.weights)
    for name, array in model.weights.items():
        assert np.array_equal(found.weights[name], array), name


def test_every_architecture_of_the_table_is_run_by_a_test():
    tried = {*KIN, *(ARCHITECTURE_OF[family] for family, _ in MODELS.values())}
    assert set(ARCHITECTURES) == tried


def test_the_page_lists_what_is_opened():
    section = (
        (Path(__file__).parents[3] / "docs" / "llamacpp.md")
        .read_text()
        .split("Opened are")[1]
        .split(".\n\nOf those")[0]
    )
    assert re.findall(r"`([^`]+)`", section) == list(ARCHITECTURES)


def test_every_family_is_opened_or_llama_cpp_does_not_have_it():
    texts = {name for name, row in FAMILIES.items() if not row.part}  # of images too, the text's family counts
    assert texts - set(ARCHITECTURE_OF) == NOT_IN_LLAMA_CPP


def test_what_is_refused_is_an_architecture_and_not_one_that_is_opened():
    newer = {"bailingmoe3", "deepseek32", "deepseek4", "gemma-embedding2", "minimax-01"}  # than the package's table
    named = {*REASONS, *NO_GRAPH}
    assert named <= set(gguf.MODEL_ARCH_NAMES.values()) | newer and not named & set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mamba", "mamba: such models have state-space layers, which the equations do not express"),
        ("deepseek2", "multi-head latent attention"),
        ("bert", "attention in both directions"),
        ("gptj", "no graph, so it cannot run it either"),
    ],
)
def test_a_refusal_says_what_stands_in_the_way(name, why, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", name)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match=why):
        spec_of(read_header(tmp_path / "tiny.gguf"))
