"""A transformers checkpoint directory, opened without transformers: `config.json` and safetensors, one file or shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from llmtrace.errors import ModelOpenError, UnsupportedModelError, shown
from llmtrace.families import family, spec_of
from llmtrace.families.native import Family
from llmtrace.families.safetensors import Entry, Tensors, read_header
from llmtrace.families.weights import Weights, canonical, first_non_finite, weights_from
from llmtrace.fingerprint import fingerprint
from llmtrace.spec import ModelSpec

__all__ = [
    "PICKLES",
    "Checkpoint",
    "check_layers",
    "first_non_finite",
    "lacking",
    "open_checkpoint",
    "read_config",
    "refuse_quantised",
    "tensors_of",
    "weights_from",
]

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@frozen(slots=False)
class Checkpoint:
    """An open checkpoint. Nothing but headers has been read until a weight is asked for."""

    directory: Path
    config: Mapping[str, Any]
    """`config.json`, as it is."""
    family: Family
    spec: ModelSpec
    tensors: Tensors = attrs.field(repr=False)
    """By stored name."""
    weights: Weights = attrs.field(repr=False)
    """By schema name, read-only, in the stored type; read and arranged on each access."""

    @property
    def stored(self) -> dict[str, str]:
        """The storage type of each schema weight: `float32`, `bfloat16`, …"""
        return {name: self.tensors[place.names[0]].dtype.name for name, place in self.weights.places.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Which model this is: a digest of `config.json` and the tensor files, whatever they are called (`llmtrace.fingerprint`)."""
        return fingerprint({self.directory / "config.json", *(entry.path for entry in self.tensors.entries.values())})


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read config and headers, and check that every weight that the equations read is there, and nothing else.

    Raises `ModelOpenError`, or `UnsupportedModelError` for an architecture or feature that the equations do not express.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ModelOpenError(f"{directory} is not a directory.")
    config = read_config(directory)
    refuse_quantised(config, directory)
    row, spec = family(config), spec_of(config)
    tensors, where = tensors_of(directory)
    check_layers(len(spec.blocks), tensors, where)
    spec = _really_tied(spec, row, tensors)
    return Checkpoint(directory, config, row, spec, tensors, weights_from(spec, row, tensors, where))


def read_config(directory: Path) -> dict[str, Any]:
    """A directory's `config.json`. Raises `ModelOpenError` where there is none, or it is no JSON object."""
    return _json(directory / "config.json", f"{directory} is no checkpoint: it lacks {lacking(directory)}.")


def refuse_quantised(config: Mapping[str, Any], source: object) -> None:
    """Raise `UnsupportedModelError` where the weights of a config's model are quantised; `source` is what the message calls it."""
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, Mapping) else quantised
        raise UnsupportedModelError(
            f"{source} is quantised ({shown(method)}): open the original checkpoint, or dequantise it first."
        )


def check_layers(layers: int, tensors: Tensors, where: str) -> None:
    """Raise `ModelOpenError`, before anything is made for each layer, where there are fewer tensors than a config announces layers."""
    if layers > len(tensors):
        raise ModelOpenError(
            f"config.json announces {layers:,} layers, and {where} holds {len(tensors)} tensors in all: one of them is not of this model."
        )


def lacking(directory: Path) -> str:
    """What a directory lacks to be a checkpoint; nothing where it has all."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    if not any(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    return " and ".join(missing)


def _json(path: Path, missing: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelOpenError(missing) from error
    except OSError as error:
        raise ModelOpenError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # the parser goes as deep as the file says
        raise ModelOpenError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ModelOpenError(f"{path} is not a JSON object.")
    return found


def tensors_of(directory: Path) -> tuple[Tensors, str]:
    """All tensors of a directory, and what to call the place that they are in.

    Raises `ModelOpenError` where there are none, a shard is missing, or a file is damaged.
    """
    if (directory / WHOLE).exists():
        return Tensors(read_header(directory / WHOLE)), str(directory / WHOLE)
    if (directory / INDEX).exists():
        return _shards(directory), str(directory)
    if pickles := sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES):
        raise ModelOpenError(
            f"{directory} has {pickles[0]} and no {WHOLE}: pickles can run code, so they are not opened. Convert it with "
            "transformers: from_pretrained, then save_pretrained."
        )
    raise ModelOpenError(
        f"{directory} has a config.json and no weights: it lacks {WHOLE}, or {INDEX} and its shards. Fetch them."
    )


def _shards(directory: Path) -> Tensors:
    places = _json(directory / INDEX, "").get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in places.values()
    ):
        raise ModelOpenError(f"{directory / INDEX} has no weight_map from tensors to files beside it.")
    entries: dict[str, Entry] = {}
    for file in sorted(set(places.values())):
        if not (directory / file).exists():
            example = next(name for name, holder in places.items() if holder == file)
            raise ModelOpenError(f"{directory} lacks the shard {shown(file)}, which holds {shown(example)}: fetch it.")
        header = read_header(directory / file)
        if absent := sorted(name for name, holder in places.items() if holder == file and name not in header):
            raise ModelOpenError(f"{directory}: {shown(file)} lacks {shown(absent[0])}, which {INDEX} places there.")
        entries |= header
    return Tensors(entries)


def _really_tied(spec: ModelSpec, row: Family, tensors: Tensors) -> ModelSpec:
    """A head that is stored beside the embedding and differs from it is used, whatever the config says: so does transformers."""
    known = canonical(row, tensors)
    names = [known.get(row.weights[weight].name) for weight in ("unembed.W_U", "embed.W_E")]
    if not spec.unembed.tied or names[0] is None or names[1] is None:
        return spec
    head, embedding = tensors[names[0]], tensors[names[1]]
    same = head.shape == embedding.shape and head.dtype == embedding.dtype and _equal(head, embedding)
    return spec if same else attrs.evolve(spec, unembed=attrs.evolve(spec.unembed, tied=False))


def _equal(a: Any, b: Any) -> bool:
    """Row block by row block, so that a difference is found early and little is in memory."""
    return all(np.array_equal(a[start : start + 4096], b[start : start + 4096]) for start in range(0, len(a), 4096))
