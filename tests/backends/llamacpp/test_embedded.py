"""The embedded model as a GGUF file. The oracles are the core's directory and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="brings the library")
pytest.importorskip("gguf")

import llmtrace
from llmtrace.data import DEMO, DEMO_MODEL, EMBEDDED, embedded
from llmtrace.errors import OptionError, PromptError
from llmtrace.families.checkpoint import open_checkpoint
from llmtrace_llamacpp import embedded as here
from llmtrace_llamacpp.embedded import DATA, file_of, write
from llmtrace_llamacpp.plugin import LlamaCppBackend
from llmtrace_llamacpp.weights import open_gguf
from llmtrace_llamacpp.writing import write_gguf

MARK_AND_LETTERS = ["<bos>", *"abcdefghijklmno"]


@pytest.fixture(scope="module")
def model():
    with llmtrace.open(DEMO_MODEL, backend="llamacpp", preset="exact") as opened:
        yield opened


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_file_is_what_the_core_s_directory_becomes_to_the_byte(name, tmp_path):
    there = DATA / f"{name}.gguf"
    assert write(name, tmp_path / "again.gguf").read_bytes() == there.read_bytes()
    assert there.stat().st_size < 1_000_000


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_weights_are_the_core_s_to_the_bit(name):
    ours, core = open_gguf(DATA / f"{name}.gguf"), open_checkpoint(embedded(name))
    assert set(ours.weights) == set(core.weights)
    for weight in core.weights:
        assert np.array_equal(ours.weights[weight], core.weights[weight]), weight


def test_the_package_has_no_file_of_a_model_that_the_core_has_not():
    assert {path.stem for path in DATA.iterdir()} == set(EMBEDDED)


@pytest.mark.parametrize(
    "source", ["induction", "builtin:", "builtin:inductoin", "builtin:../data/induction", "builtin:*", "x\0y", ""]
)
def test_only_an_embedded_model_s_name_has_a_file(source):
    assert file_of(source) is None
    assert LlamaCppBackend.probe(source, None) is None


def test_it_is_opened_by_its_name_and_the_name_stays_in_the_trace(model):
    assert (model.info.source, model.info.backend, model.chosen) == (DEMO_MODEL, "llamacpp", "named")
    with llmtrace.open("llamacpp:builtin:induction") as prefixed, llmtrace.open(DEMO_MODEL) as first:
        assert (prefixed.info.backend, prefixed.info.source) == ("llamacpp", DEMO_MODEL)
        assert (first.info.backend, first.info.notes) == ("reference", ())


def test_a_saved_trace_finds_its_model_again_by_that_name(model, tmp_path):
    from llmtrace.origin import open_origin

    model.trace(DEMO.prompt).save(tmp_path / "a.trace")
    with open_origin(llmtrace.load(tmp_path / "a.trace")) as origin:
        assert not origin.missing


def test_tokens_have_the_ids_and_the_texts_of_the_core_s(model):
    with llmtrace.open(DEMO_MODEL, backend="reference") as reference:
        for text in (DEMO.prompt, "a", "  b\tc \n", "<bos> k", ""):
            assert model.tokens(text) == reference.tokens(text), text
        every = range(len(MARK_AND_LETTERS))
        assert [model.tokenizer.token(id) for id in every] == [reference.tokenizer.token(id) for id in every]
    assert model.tokenizer.find(DEMO.answer) == 5
    assert model.predict(DEMO.prompt).text == DEMO.answer
    assert model.influence(DEMO.prompt, target=DEMO.answer).target.id == 5


@pytest.mark.parametrize("text", ["z", "c a z", "?", "C", "é", "c ▁", "s", "<bos> s", "<", "\0"])
def test_what_it_has_no_token_for_is_a_typed_error(model, text):
    with pytest.raises(PromptError, match=r"induction\.gguf"):
        model.tokens(text)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (MARK_AND_LETTERS[:-1], "15 texts are no vocabulary of 16 tokens"),
        ([*MARK_AND_LETTERS[:-1], "a"], "each is one letter of its own"),
        ([*MARK_AND_LETTERS[:-1], "on"], "'on' is none"),
        ([*MARK_AND_LETTERS[:-1], " "], "' ' is none"),
        ([*MARK_AND_LETTERS[:-1], "\u0120"], "'Ġ' is none"),
    ],
)
def test_letters_that_are_no_vocabulary_are_refused_and_nothing_is_written(tmp_path, texts, words):
    with pytest.raises(OptionError, match=words):
        write_gguf(open_checkpoint(embedded("induction")), tmp_path / "a.gguf", letters=texts)
    assert not list(tmp_path.iterdir())


def test_the_files_travel_with_the_package():
    """Where it is installed, and in the wheel: that takes the whole folder of the package."""
    import tomllib

    root = Path(here.__file__).parent
    assert DATA.parent == root
    built = tomllib.loads((root.parent / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert built == {"targets": {"wheel": {"packages": [root.name]}}}
