"""Reads a dump. **Array**: one entry of it, by name; those in a file are read when they are looked up, where the format lets them be.

No file that is read here can run code: `.npy` and `.npz` files with Python objects in them, and pickles of any name, are refused.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from attrs import frozen

from llmtrace.errors import DumpError, ModelOpenError, shown
from llmtrace.families.checkpoint import PICKLES
from llmtrace.families.safetensors import Tensors, read_header
from llmtrace.schema.sites import Array

HOW = "a directory of .npy files, an .npz file or a .safetensors file"
PICKLED = (*PICKLES, ".pkl", ".pickle")
SAVE = "safetensors.torch.save_file({name: value.contiguous().clone() for name, value in cache.items()}, 'dump.safetensors')"
"""How a cache of torch tensors is kept without a pickle; tensors that share memory are kept apart."""
DAMAGED = (
    ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy raises at a file that is not what it says."""


@frozen(eq=False)
class Dump:
    """Arrays by name, and what they are called together."""

    name: str
    """For messages."""
    arrays: Mapping[str, Array]
    """As they were handed over or as they stand in the file."""


def open_dump(source: object) -> Dump:
    """A file or directory by its path, or anything with `items()`: a dictionary, a TransformerLens `ActivationCache`.

    Raises `DumpError` for what is no dump, for a damaged file, and for an empty one.
    """
    if isinstance(source, str | Path):
        dump = Dump(str(source), _read(Path(source)))
    elif hasattr(source, "items"):
        name = f"this {type(source).__name__}"
        dump = Dump(name, {str(key): _array(name, str(key), value) for key, value in source.items()})
    else:
        raise DumpError(f"A dump is a mapping from names to arrays, or the path of {HOW}, and not {source!r:.80}.")
    if not dump.arrays:
        raise DumpError(f"{dump.name} holds no arrays.")
    return dump


def _read(path: Path) -> Mapping[str, Array]:
    if os.path.isdir(path):  # where no file can have the name, `Path.is_dir` raises
        return _directory(path)
    if not (os.path.exists(path) and path.is_file()):
        raise DumpError(f"There is no file or directory {shown(str(path), 200)}.")
    kind = path.suffix.lower()
    if kind in PICKLED:
        raise DumpError(f"{path} is a pickle, which can run code, so it is not opened. Save it otherwise: {SAVE}.")
    if kind == ".npz":
        return _archive(path)
    if kind == ".safetensors":
        return _safetensors(path)
    raise DumpError(f"{path} is not a dump that can be read: name {HOW}.")


def _directory(path: Path) -> dict[str, Array]:
    files = sorted(file for file in path.glob("*.npy") if file.is_file())
    if not files:
        raise DumpError(f"{path} holds no .npy files: a dump is {HOW}.")
    return {file.stem: _mapped(file) for file in files}


def _mapped(path: Path) -> Array:
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _archive(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # NumPy leaves its own open where it raises
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DumpError(f"{path} is one array and no archive of them: write it with numpy.savez.")
            names = list(archive.files)
            if len(set(names)) < len(names):
                raise DumpError(f"{path} holds one name twice: write it again with numpy.savez.")
            found = {name: archive[name] for name in names}
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if foreign := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
        raise DumpError(f"{path} holds {shown(foreign[0])}, which is no array: write it again with numpy.savez.")
    return found


def _damaged(path: Path, error: Exception) -> DumpError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return DumpError(
        f"{path} is no whole file of plain numbers ({said[0].rstrip('.')}): write it again with numpy.save or numpy.savez."
    )


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        tensors = Tensors(read_header(path))
        return {name: tensors[name] for name in tensors}
    except ModelOpenError as error:
        raise DumpError(str(error).replace("Fetch it again", "Write it again")) from error


def _array(dump: str, name: str, value: Any) -> Array:
    """A NumPy array, or a torch tensor of any type and device, without importing torch; no copy where none is needed."""
    try:
        if hasattr(value, "detach"):
            tensor = value.detach().cpu()
            if str(tensor.dtype) == "torch.bfloat16":  # which NumPy lacks; float32 holds each of its values
                return np.asarray(tensor.float().numpy().astype(ml_dtypes.bfloat16))
            return np.asarray(tensor.numpy())
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except (TypeError, RuntimeError) as error:
        raise DumpError(f"{shown(name)} in {dump} is no plain array ({str(error).splitlines()[0]:.120}).") from error
    raise DumpError(f"{shown(name)} in {dump} is a {type(value).__name__} and no array.")
