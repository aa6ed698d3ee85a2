"""A file that is to be written is looked at before the work that it is for."""

from __future__ import annotations

import os

import numpy as np
import pytest

MODEL = "builtin:induction"


@pytest.fixture
def sources(cli, tmp_path):
    """The files that the commands read, and what is in them."""
    np.savez(tmp_path / "dump.npz", tokens=[0, 3])
    cli("trace", MODEL, "c a", "--save", "saved.trace")
    (tmp_path / "map.toml").write_text('"a" = "embed"\n', encoding="utf-8")
    (tmp_path / "prompt.txt").write_text("c a\n", encoding="utf-8")
    (tmp_path / "model.gguf").write_bytes(b"weights")
    return lambda: {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "args",
    [
        ("import", "dump.npz", "dump.npz", "--model", MODEL),
        ("import", "dump.npz", "./saved.trace", "--model", "saved.trace"),
        ("import", "dump.npz", "map.toml", "--model", MODEL, "--map", "map.toml"),
        ("compare", MODEL, "saved.trace", "--html", "saved.trace"),
        ("compare", MODEL, "llamacpp:model.gguf", "--html", "model.gguf"),
        ("compare", "model.gguf", MODEL, "--node-data", "model.gguf"),
        ("compare", MODEL, MODEL, "--prompts", "prompt.txt", "--html", "prompt.txt"),
        ("compare", MODEL, MODEL, "--budget", "--text", "prompt.txt", "--html", "prompt.txt"),
        ("view", "saved.trace", "--html", "saved.trace"),
        ("trace", MODEL, "--prompt-file", "prompt.txt", "--save", "prompt.txt"),
        ("influence", MODEL, "--prompt-file", "prompt.txt", "--html", "prompt.txt"),
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written_over(cli, sources, args):
    before = sources()
    assert "is what is read: name another file to write" in cli(*args).error
    assert sources() == before


def test_a_read_only_file_is_refused_before_anything_is_opened(cli, tmp_path, monkeypatch):
    (tmp_path / "kept.html").write_text("kept", encoding="utf-8")
    (tmp_path / "kept.html").chmod(0o444)
    allowed = os.access  # root may write everywhere, and may run the tests
    monkeypatch.setattr(
        os, "access", lambda path, mode: (str(path), mode) != ("kept.html", os.W_OK) and allowed(path, mode)
    )
    assert "'kept.html' is read-only" in cli("compare", "no-such-model", MODEL, "--html", "kept.html").error
