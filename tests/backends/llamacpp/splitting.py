"""GGUF files made of others by the package gguf: split as llama.cpp's gguf-split does it, or with other metadata or tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ADD = {bool: "add_bool", int: "add_uint32", float: "add_float32", str: "add_string", list: "add_array"}
STORED = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int32): "I32"}


def split(source: Path, directory: Path, tensors: int, *, first_bare: bool = False) -> list[Path]:
    """`source` in parts of at most so many tensors each, in `directory`; `first_bare` leaves the first with the metadata alone."""
    copied(source, directory / source.name, split_max_tensors=tensors, small_first_shard=first_bare)
    return sorted(directory.glob(f"{source.stem}-*-of-*.gguf"))


def copied(
    source: Path,
    target: Path,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    split_max_tensors: int = 0,
    small_first_shard: bool = False,
) -> Path:
    """A copy with other metadata and tensors: by key and name, new or changed; None leaves one out."""
    metadata, tensors = dict(metadata or {}), dict(tensors or {})
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(
        target,
        reader.fields["general.architecture"].contents(),
        split_max_tensors=split_max_tensors,
        small_first_shard=small_first_shard,
    )
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in {"general.architecture", *metadata}:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for key, value in metadata.items():
        if value is not None:
            getattr(writer, ADD[type(value)])(key, value)
    for tensor in reader.tensors:
        if tensor.name not in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, array in tensors.items():
        if array is not None:
            writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[STORED[array.dtype]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """Every float32 tensor of a file, slowest axis first."""
    return {
        one.name: np.array(one.data.reshape([int(n) for n in one.shape][::-1])) for one in gguf.GGUFReader(path).tensors
    }
