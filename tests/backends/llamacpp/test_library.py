"""Finding and loading llama.cpp: the option before the environment before the packages, each failure with its remedy."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import platform
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="brings the library")

from llmtrace.errors import ModelOpenError
from llmtrace_llamacpp import library, log
from llmtrace_llamacpp.abi import AbiError
from llmtrace_llamacpp.native import NativeModel


@pytest.fixture
def here(monkeypatch):
    """The library that is installed, and an environment that names none."""
    monkeypatch.delenv(library.VARIABLE, raising=False)
    return library.find().paths[0]


def test_the_installed_package_brings_the_library_and_is_not_imported(here):
    assert here.is_file()
    code = "import sys; from llmtrace_llamacpp.library import load; load(); print([m for m in sys.modules if 'xllama' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_option_comes_before_the_environment_and_that_before_the_packages(here, tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours.so", tmp_path / "theirs.so"
    ours.touch(), theirs.touch()
    monkeypatch.setenv(library.VARIABLE, str(theirs))
    assert library.find(str(ours)).paths == (ours,)
    assert library.find().paths == (theirs,)
    monkeypatch.delenv(library.VARIABLE)
    assert library.find().origin == "xllamacpp"


def test_several_files_are_joined_as_paths_are(here, tmp_path):
    parts = [tmp_path / "a.so", tmp_path / "b.so"]
    for part in parts:
        part.touch()
    assert library.find(os.pathsep.join(map(str, parts))).paths == tuple(parts)


def test_packages_are_looked_through_in_their_order(here, tmp_path, monkeypatch):
    (tmp_path / "llama_cpp" / "lib").mkdir(parents=True)
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise SystemExit('imported')")
    found = tmp_path / "llama_cpp" / "lib" / "libllama.so"
    found.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert library.find().origin == "xllamacpp"
    monkeypatch.setattr(library, "PACKAGES", {k: v for k, v in library.PACKAGES.items() if k != "xllamacpp"})
    assert library.find() == library.Found((found,), "llama-cpp-python")


def test_a_file_that_is_not_there_is_named_with_who_named_it(monkeypatch):
    with pytest.raises(ModelOpenError, match=r"option library names .*gone\.so.*give the path"):
        library.find("/nowhere/gone.so")
    monkeypatch.setenv(library.VARIABLE, "/nowhere/gone.so")
    with pytest.raises(ModelOpenError, match=f"{library.VARIABLE} names"):
        library.find()


def test_no_library_at_all_says_what_to_install(here, monkeypatch):
    monkeypatch.setattr(library, "PACKAGES", {})
    with pytest.raises(ModelOpenError, match=rf"pip install {library.INSTALL}.*{library.VARIABLE}"):
        library.find()


@pytest.mark.skipif(sys.platform != "linux", reason="names a library of Linux")
def test_another_library_is_refused_by_the_function_that_it_lacks():
    other = next(
        Path(path)
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libc.so" in (path := line.split()[-1])
    )
    with pytest.raises(AbiError, match=r"libc\.so.* has no function llama_backend_init.*option library"):
        library.load(str(other))


def test_a_file_that_is_no_library_is_refused(tmp_path):
    (tmp_path / "libllama.so").write_text("not one")
    with pytest.raises(ModelOpenError, match=r"libllama\.so cannot be loaded"):
        library.load(str(tmp_path / "libllama.so"))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("libgomp.so.1: cannot open shared object file", "libgomp1"),
        ("version `GLIBC_2.38' not found", "built for a newer system"),
        ("wrong ELF class", "force-reinstall"),
    ],
)
def test_what_the_loader_lacks_becomes_a_remedy(here, monkeypatch, text, remedy):
    def refuse(path):
        raise OSError(text)

    monkeypatch.setattr(library.c, "CDLL", refuse)
    monkeypatch.setattr(library, "_loaded", {})
    with pytest.raises(ModelOpenError, match=remedy):
        library.load()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions of x86-64")
def test_a_processor_without_the_instructions_is_refused_before_the_library_is_loaded(here, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse2 avx fma f16c bmi2\n")
    monkeypatch.setattr(library, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(library.c, "CDLL", lambda path: pytest.fail("loaded"))
    with pytest.raises(ModelOpenError, match="this one lacks avx2"):
        library.load()
    # a library of one's own is compiled for one's own processor
    monkeypatch.setattr(library.c, "CDLL", lambda path: (_ for _ in ()).throw(OSError("reached")))
    with pytest.raises(ModelOpenError, match="reached"):
        library.load(str(here))


def test_it_is_loaded_once_whoever_asks(here, monkeypatch):
    monkeypatch.setattr(library, "_loaded", {})
    opened = []
    plain = ctypes.CDLL
    monkeypatch.setattr(library.c, "CDLL", lambda path: opened.append(path) or plain(path))
    found: list[library.Library] = []
    threads = [threading.Thread(target=lambda: found.append(library.load())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1 and len({id(each) for each in found}) == 1


def test_the_version_is_said_of_package_and_ggml(here):
    versions = library.load().versions
    assert versions["xllamacpp"] == version("xllamacpp")
    assert versions["ggml"].count(".") == 2
    assert versions["ggml"] in library.load().name and str(here) in library.load().name


def test_the_library_is_silent_and_speaks_to_who_listens(tmp_path, caplog, capfd):
    (tmp_path / "empty.gguf").write_bytes(b"")
    with caplog.at_level(logging.DEBUG, log.LOGGER.name), pytest.raises(ModelOpenError, match="failed to"):
        NativeModel(tmp_path / "empty.gguf")
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    assert capfd.readouterr() == ("", "")


def test_last_words_are_of_this_thread_and_of_this_call(tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    log.forget()
    assert log.last_words() == "it does not say why"
    with pytest.raises(ModelOpenError):
        NativeModel(tmp_path / "empty.gguf")
    assert "failed" in log.last_words()
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(log.last_words()))
    thread.start(), thread.join()
    assert heard == ["it does not say why"]


def test_a_handler_that_raises_does_not_reach_the_library(tmp_path, monkeypatch, capfd):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("mine")

    (tmp_path / "empty.gguf").write_bytes(b"")
    broken = Broken()
    log.LOGGER.addHandler(broken)
    try:
        with pytest.raises(ModelOpenError, match="failed"):
            NativeModel(tmp_path / "empty.gguf")
    finally:
        log.LOGGER.removeHandler(broken)
    assert capfd.readouterr().err == ""
