"""Tensors of a GGUF file one by one, dequantised when they are looked at. **Packed**: a tensor that is still in the file.

For architectures whose tensors transformers' reader undoes one at a time; those whose experts it takes apart together are read whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
from attrs import frozen
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    BloomTensorProcessor,
    Gemma2TensorProcessor,
    LlamaTensorProcessor,
    NemotronTensorProcessor,
    TensorProcessor,
)

from llmtrace.families.native import Family, native_of
from llmtrace.families.weights import stored_as
from llmtrace.gguf_header import Header, TensorInfo
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import needed
from llmtrace.spec import ModelSpec, Moe

ONE_BY_ONE = (
    TensorProcessor,
    LlamaTensorProcessor,
    Gemma2TensorProcessor,
    BloomTensorProcessor,
    NemotronTensorProcessor,
)
"""Readers of transformers that undo a tensor (a permutation, a `1 +`) without looking at another."""


@frozen
class Packed:
    """One tensor in the file, with the shape and type that it will have; `numpy.asarray` reads it."""

    header: Header
    info: TensorInfo
    undo: Any
    """What transformers' reader does to it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest axis first."""
        return self.info.shape[::-1]

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """What it is dequantised to."""
        return np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read it, undo the packing, and undo what the conversion to GGUF did to it."""
        kind = gguf.GGMLQuantizationType[self.info.kind]
        raw = self.header.packed(self.info.name)
        array = np.asarray(gguf.dequantize(raw, kind), np.float32).reshape(self.shape)
        undone: Array = self.undo.process(array, self.info.name).weights
        return undone.astype(dtype or np.float32, copy=False)


def packed(spec: ModelSpec, family: Family, header: Header, config: Any) -> dict[str, Packed] | None:
    """The tensors that the model's equations read, by native name; None where the file must be read as a whole."""
    architecture = str(header.metadata["general.architecture"])
    reader: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    routed = any(isinstance(branch.module, Moe) for block in spec.blocks for branch in block.branches)
    if reader not in ONE_BY_ONE or architecture not in kinds or routed:
        return None
    names = _names(spec, family, kinds[architecture])
    if not set(names.values()) <= set(header.tensors):
        return None
    undo = reader(config=config.to_dict())
    return {native: Packed(header, header.tensors[name], undo) for native, name in names.items()}


def _names(spec: ModelSpec, family: Family, architecture: Any) -> Mapping[str, str]:
    """Native name to the file's, for every tensor that the equations read."""
    table = gguf.get_tensor_name_map(architecture, len(spec.blocks))
    found: dict[str, str] = {}
    for weight, _ in needed(spec):
        for native in native_of(family, stored_as(spec, weight.name), weight.shape[0])[1]:
            stem, dot, last = native.rpartition(".")
            stem, suffix = (stem, dot + last) if last in ("weight", "bias") else (native, "")
            base = stem.removeprefix(family.prefix)  # of BLOOM its table has the base model only
            own = table.get_name(stem) or table.get_name(base)
            found[native] = f"{own}{suffix}"
    return found
