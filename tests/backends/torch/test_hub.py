"""What is fetched from the hub: config, safetensors and tokenizer; Python code only where it may run; never a pickle."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

pytest.importorskip("torch")
huggingface_hub = pytest.importorskip("huggingface_hub")

import llmtrace
from llmtrace.errors import ModelOpenError
from llmtrace_torch.hub import fetch


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The patterns that were asked for, instead of a download."""
    calls = []

    def snapshot(name, *, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls


def taken(patterns, *names):
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def test_code_is_fetched_only_where_it_may_run(asked):
    fetch("org/name", "main")
    fetch("org/name", "main", trust=True)
    files = (
        "config.json",
        "model-00001-of-00002.safetensors",
        "tokenizer.json",
        "modeling_x.py",
        "pytorch_model.bin",
        "x.pkl",
    )
    assert [taken(patterns, *files) for _, _, patterns in asked] == [list(files[:3]), list(files[:4])]


@pytest.mark.parametrize("trust", [False, True])
def test_the_option_reaches_the_hub(asked, trust):
    with pytest.raises(ModelOpenError, match=r"config\.json"):
        llmtrace.open("org/name", backend="torch", options={"trust_remote_code": trust, "revision": "v1"})
    ((name, revision, patterns),) = asked
    assert (name, revision, "*.py" in patterns) == ("org/name", "v1", trust)
