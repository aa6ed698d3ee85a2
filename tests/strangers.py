"""Distributions of strangers, as pip would leave them on a path of their own, and a process that finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

BACKEND = """
import os, sys, time
from attrs import evolve
from llmtrace import hookimpl
from llmtrace.errors import BackendError
from llmtrace.protocol import Gap
from llmtrace.reference.open import open_reference
from llmtrace.reference.plugin import ReferenceBackend

class Stranger(ReferenceBackend):
    name = "{name}"
    capabilities = ("weights",)

    @staticmethod
    def open(source, options):
        return Session(open_reference(source, options))

class Session:
    tokenizer = None

    def __init__(self, inner):
        self.inner, self.info = inner, evolve(inner.info, backend="{name}")
        for member in ("spec", "offers", "gaps", "weights", "stored"):
            setattr(self, member, getattr(inner, member))

    def run(self, request, observer):
        self.inner.run(request, observer)

    def close(self):
        self.inner.close()

@hookimpl
def llmtrace_backends():
    return [Stranger]
"""
"""The reference backend under another name, to be spoiled by what is written below it."""


def install(folder: Path, distribution: str, source: str, module: str = "") -> Path:
    """A distribution `distribution` 1.0 with one module, which its entry point names."""
    module = module or distribution.replace("-", "_")
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return registered(folder, distribution, f"{distribution} = {module}")


def registered(folder: Path, distribution: str, entry: str) -> Path:
    """What pip writes beside a distribution's modules."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[llmtrace]\n{entry}\n")
    return folder


def environment(*folders: Path) -> dict[str, str]:
    """That of a process which finds what is installed in these folders."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return os.environ | {"PYTHONPATH": path}


def llmtrace(
    *args: object, path: tuple[Path, ...], cwd: Path, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "llmtrace.cli", *map(str, args)],
        cwd=cwd, env=environment(*path) | dict(more or {}), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
