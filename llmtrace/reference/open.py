"""From a directory to a session of the reference backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import llmtrace
from llmtrace.data import PREFIX, embedded
from llmtrace.errors import ModelOpenError
from llmtrace.families.checkpoint import Checkpoint, first_non_finite, open_checkpoint
from llmtrace.reference.options import ReferenceOptions
from llmtrace.reference.session import ReferenceSession
from llmtrace.tokenizer import open_tokenizer
from llmtrace.trace import ModelInfo


def open_reference(source: str, options: ReferenceOptions) -> ReferenceSession:
    """Open a checkpoint directory, or an embedded model by its name (`builtin:induction`).

    Every weight is read once, to say in the notes which one holds NaN or infinity. Raises `ModelOpenError` and its kin.
    """
    directory = embedded(source) if source.startswith(PREFIX) else Path(source).expanduser()
    if not directory.is_dir():
        raise ModelOpenError(
            f"The reference backend opens a directory with config.json and safetensors; {source!r} is none."
        )
    checkpoint = open_checkpoint(directory)
    tokenizer, note = open_tokenizer(directory)
    bad = first_non_finite(checkpoint.weights)
    notes = [note, f"The weights hold NaN or infinity in {bad}." if bad else ""]
    info = _info(source, checkpoint, options, tuple(filter(None, notes)))
    return ReferenceSession(checkpoint.spec, checkpoint.weights, checkpoint.stored, options.dtype, info, tokenizer)


def _info(source: str, checkpoint: Checkpoint, options: ReferenceOptions, notes: tuple[str, ...]) -> ModelInfo:
    return ModelInfo(
        source=source,
        backend="reference",
        runtime="NumPy",
        versions={"llmtrace-core": llmtrace.__version__, "numpy": np.__version__},
        fingerprint=checkpoint.fingerprint,
        weights=", ".join(sorted(set(checkpoint.stored.values()))),
        settings={"dtype": options.dtype},
        notes=notes,
    )
