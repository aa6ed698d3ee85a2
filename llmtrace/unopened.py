"""Says why no backend opens a source. **Lacking**: what a directory would have to hold to be a model; nobody is told to install what
would not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmtrace.errors import BackendNotFoundError, LLMTraceError, ModelOpenError, shown
from llmtrace.families.checkpoint import PICKLES, lacking

NEEDS = {".gguf": "llmtrace-torch or llmtrace-llamacpp", ".onnx": "llmtrace-onnxruntime"}
"""Suffix to the distributions that open such a file."""
OPENS = {".gguf": ("torch", "llamacpp"), ".onnx": ("onnxruntime",)}
"""Suffix to the names of their backends."""
POINTER = b"version https://git-lfs"
"""How a file of Git LFS begins that stands for another."""
KNOWN = "Models are directories with config.json and *.safetensors, .gguf and .onnx files, and what a plugin adds."
MODEL_SUFFIXES = (*NEEDS, ".safetensors", ".trace")


def is_path(source: str, named: bool) -> bool:
    """Whether a source can be nothing but a path. A named backend may give other meanings to a suffix, and expand a `~`."""
    if source.startswith((".", "/")):
        return True
    return not named and (source.startswith("~") or Path(source).suffix in MODEL_SUFFIXES)


def unopened(source: str, path: Path | None, installed: Sequence[str], broken: Sequence[str]) -> LLMTraceError:
    """The error for a source that none of the `installed` backends opens; `path` is where it is, and `broken` what is wrong with whom."""
    others = f" {'; '.join(broken)}." if broken else ""
    if path is None:
        return ModelOpenError(
            f"There is no file or directory {source!r:.200}, and no installed backend opens it by name.{others}"
        )
    names = ", ".join(installed)
    if fault := _directory(path) if path.is_dir() else _file(path, installed):
        return ModelOpenError(f"{source!r} is no model that {names} open: {fault}.{others}")
    need = "" if path.is_dir() else f" {KNOWN}"
    if path.suffix in NEEDS:
        need = f" Such a file needs the distribution {NEEDS[path.suffix]}."
    return BackendNotFoundError(f"No installed backend opens {source!r}; installed are {names}.{need}{others}")


def _directory(path: Path) -> str:
    missing = lacking(path)
    inside = next((each.name for suffix in NEEDS for each in sorted(path.glob(f"*{suffix}"))), None)
    there = f". It holds {shown(inside)}: name that file" if inside else f", and holds no {' or '.join(NEEDS)} file"
    return f"it lacks {missing}{there}" if missing else ""


def _file(path: Path, installed: Sequence[str]) -> str:
    """What is wrong with a file, or nothing where it may be a model of a runtime that is not installed."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(POINTER))
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not begins:
        return "it is empty: fetch it again"
    if begins == POINTER:
        return "it is a pointer of Git LFS, not the file itself: git lfs pull"
    if path.suffix == ".gguf" and begins[:4] != b"GGUF":
        return "it does not begin as a GGUF file: fetch it again"
    if path.suffix == ".onnx" and set(OPENS[path.suffix]) & set(installed):
        return "it does not begin as an ONNX model: fetch it again"
    if path.suffix == ".safetensors":
        return "it is one file of a model: name the directory that it lies in, with its config.json"
    if path.suffix in PICKLES:
        return "it is a pickle, which can run code, so it is not opened: convert it to safetensors"
    if path.suffix == ".trace":
        return "it is a saved trace: `llmtrace view` and `llmtrace verify` read it, and `llmtrace.load`"
    return ""
