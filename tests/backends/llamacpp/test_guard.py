"""Files that end the process end another one: what is refused from the header, what a process of its own finds, and how it says so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="brings the library")
pytest.importorskip("gguf")

from attrs import evolve

from llmtrace.errors import LLMTraceError, ModelOpenError, UnsupportedModelError
from llmtrace.gguf_header import read_header
from llmtrace_llamacpp import guard
from llmtrace_llamacpp.abi import AbiError
from llmtrace_llamacpp.library import load
from tests.backends.llamacpp import tiny

FUZZED = 300


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tiny.tiny_gguf("llama", tmp_path_factory.mktemp("llama"))[1]


@pytest.fixture
def unknown(monkeypatch):
    """A process that has admitted nothing."""
    monkeypatch.setattr(guard, "_admitted", set())


def replaced(file: Path, path: Path, old: bytes, new: bytes) -> Path:
    """The file with some bytes, which it has once, changed."""
    raw = file.read_bytes()
    assert raw.count(old) == 1 and len(old) == len(new)
    path.write_bytes(raw.replace(old, new))
    return path


@pytest.fixture
def deadly(file, tmp_path) -> Path:
    """A file of which llama.cpp dies: one token of the vocabulary is there twice."""
    text = (1).to_bytes(8, "little")
    return replaced(file, tmp_path / "deadly.gguf", text + b"A" + text + b"B", text + b"A" + text + b"A")


# -- from the header


def test_a_sound_header_passes(file):
    guard.check(read_header(file))


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        ("llama.block_count", 0, "from 1 to 512"),
        ("llama.block_count", 100_000, "from 1 to 512"),
        ("llama.block_count", None, "from 1 to 512"),
        ("llama.block_count", 2, "3, as many as there are blocks"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "a finite number"),
        ("llama.attention.layer_norm_rms_epsilon", 0.0, "above 0"),
        ("llama.attention.layer_norm_rms_epsilon", -1e-5, "above 0"),
        ("llama.rope.freq_base", float("inf"), "a finite number"),
        ("llama.attention.head_count", 0, "above 0"),
        ("llama.embedding_length", 0, "above 0"),
        ("llama.attention.sliding_window", 2**31, "2147483647 at most"),
    ],
)
def test_metadata_of_which_the_library_dies_are_refused_by_key_and_value(file, key, value, sound):
    header = read_header(file)
    with pytest.raises(ModelOpenError, match=rf"{key} = .*should be .*{sound}"):
        guard.check(evolve(header, metadata={**header.metadata, key: value}))


def test_a_token_that_is_there_twice_is_refused_from_the_header(deadly):
    with pytest.raises(ModelOpenError, match=r"tokenizer\.ggml\.tokens.*twice"):
        guard.check(read_header(deadly))


# -- in a process of its own


def test_a_sound_file_is_admitted_once(file, unknown, monkeypatch):
    guard.admit(file, load())
    monkeypatch.setattr(guard.subprocess, "run", lambda *_, **__: pytest.fail("tried again"))
    guard.admit(str(file), load())


def test_a_file_that_has_changed_is_tried_again(file, tmp_path, unknown):
    path = tmp_path / "changing.gguf"
    path.write_bytes(file.read_bytes())
    guard.admit(path, load())
    path.write_bytes(file.read_bytes()[:-100_000])
    with pytest.raises(ModelOpenError):
        guard.admit(path, load())


def test_a_file_that_has_changed_within_its_size_is_tried_again(file, deadly, unknown):
    raw = deadly.read_bytes()
    deadly.write_bytes(file.read_bytes())
    guard.admit(deadly, load())
    deadly.write_bytes(raw)
    os.utime(deadly, (0, 0))  # a clock may be too coarse for two writes
    with pytest.raises(ModelOpenError, match="end its process"):
        guard.admit(deadly, load())


def test_a_crash_there_is_an_error_here_with_the_assertion(deadly, unknown):
    with pytest.raises(
        ModelOpenError, match=r"deadly\.gguf makes llama\.cpp end its process \(SIGABRT\): GGML_ASSERT\(.*\) failed"
    ):
        guard.admit(deadly, load())


def test_what_that_process_raises_is_raised_here(file, tmp_path, unknown):
    path = tmp_path / "short.gguf"
    path.write_bytes(file.read_bytes()[:-100_000])
    with pytest.raises(ModelOpenError, match=r"llama\.cpp cannot load .*short\.gguf: .*not within the file bounds"):
        guard.admit(path, load())
    with pytest.raises(ModelOpenError, match=r"gone\.gguf cannot be read"):
        guard.admit(tmp_path / "gone.gguf", load())


@pytest.mark.parametrize("kind", [UnsupportedModelError, AbiError, ModelOpenError])
def test_the_kind_of_an_error_comes_through(kind):
    found = guard._reason(Path("x"), guard.REFUSED, f'["{kind.__name__}", "so"]'.encode(), "")
    assert type(found) is kind and str(found) == "so"


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (-9, "", r"\(SIGKILL\): it left no message\. There may be too little memory"),
        (-4, "", r"\(SIGILL\).*compiled for another processor"),
        (-6, "terminate called after throwing\n  what():  _Map_base::at\n", r"what\(\):  _Map_base::at\."),
        (-11, "one line\n\n", "SIGSEGV.*one line"),
        (1, "Traceback\nValueError: \x1b[2J", r"status 1\): 'ValueError: \\x1b\[2J'"),
    ],
)
def test_how_a_process_died_is_told(status, said, expected):
    with pytest.raises(ModelOpenError, match=expected):
        raise guard._reason(Path("x"), status, b"", said)


def test_a_process_that_does_not_end_is_ended(file, unknown):
    with pytest.raises(ModelOpenError, match=r"busy for 0 s.*guard=false"):
        guard.admit(file, load(), timeout=0.01)


def test_no_process_at_all_is_said(file, unknown, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ModelOpenError, match="cannot be started"):
        guard.admit(file, load())


def test_modules_in_the_working_directory_are_not_run(file, tmp_path, unknown, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    guard.admit(file, load())


# -- whatever the bytes


def fuzzed(raw: bytes, header: int, seed: int) -> bytes:
    """Cut short, or with one to four bits flipped: in the metadata, the header, anywhere."""
    rng = random.Random(seed)  # noqa: S311  # the same files every time
    if seed % 6 == 0:
        return raw[: rng.randrange(len(raw))]
    changed, end = bytearray(raw), (1500, header, header, header, len(raw))[seed % 6 - 1]
    for _ in range(rng.choice((1, 1, 2, 4))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


SCRIPT = """
import sys
from pathlib import Path
from llmtrace.errors import LLMTraceError
from llmtrace_llamacpp import guard
from llmtrace_llamacpp.library import load
libraries = str(load().paths[0])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    print(number, flush=True)
    try:
        guard._try(f"{sys.argv[1]}/{number}.gguf", libraries)
        print("opened", flush=True)
    except LLMTraceError:
        print("refused", flush=True)
"""


def test_damaged_files_are_refused_or_open_and_never_end_this_process(file, tmp_path, unknown, monkeypatch):
    raw, header = file.read_bytes(), read_header(file).start
    for seed in range(FUZZED):
        (tmp_path / f"{seed}.gguf").write_bytes(fuzzed(raw, header, seed))
    outcome: list[str] = []
    crashed: list[int] = []
    while len(outcome) < FUZZED:  # all in one process, and on in the next after one that died
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(len(outcome)), str(FUZZED)], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        said = [line for line in done.stdout.splitlines() if line in ("opened", "refused")]
        outcome += said
        if done.returncode:
            assert done.returncode < 0, done.stderr
            crashed.append(len(outcome))
            outcome.append("crashed")
    assert outcome.count("opened") > 20 and outcome.count("refused") > 100
    assert crashed, "no file ended the process: the guard is not put to the test"
    for seed in crashed:
        with pytest.raises(ModelOpenError, match="end its process"):
            guard.admit(tmp_path / f"{seed}.gguf", load())
    # and what the header tells is told before
    told = 0
    for seed in crashed:
        try:
            guard.check(read_header(tmp_path / f"{seed}.gguf"))
        except ModelOpenError:
            told += 1
    assert told >= len(crashed) - 1
    for seed in range(0, FUZZED, 6):  # what was cut short is refused by the header alone
        with suppress(LLMTraceError):
            guard.check(read_header(tmp_path / f"{seed}.gguf"))
            pytest.fail(f"{seed} was cut short and passed")
