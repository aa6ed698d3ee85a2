"""A trace to save, and ways to spoil its file."""

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest

from llmtrace.model import Model
from llmtrace.selection import select
from llmtrace.trace import Token, Trace
from tests.specs import SPECS, WeighedSession, equations

IDS = (1, 4, 2, 4)


@pytest.fixture
def trace():
    """A trace of a small model in float32, with experts (integers) and derived signals."""
    built = equations(SPECS["experts"])
    offers = [site for site in built.steps if not site.endswith((".scores", ".pattern"))]
    recorded = Model(WeighedSession(built, offers, "float32")).trace(IDS)
    assert {signal.dtype.name for signal in recorded.signals.values()} == {"float32", "int64"}
    return recorded


@pytest.fixture
def saved(trace, tmp_path):
    path = tmp_path / "a.trace"
    trace.save(path)
    return path


class File:
    """A saved trace taken apart; `write` puts it together again, digest of the manifest included."""

    def __init__(self, path):
        self.path = path
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        self.header = json.loads(data[8 : 8 + length])
        self.manifest = json.loads(self.header["__metadata__"]["llmtrace"])
        self.data = data[8 + length :]

    def write(self, header_text=None, manifest_text=None):
        if header_text is None:
            text = json.dumps(self.manifest) if manifest_text is None else manifest_text
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.header["__metadata__"] = {"llmtrace": text, "llmtrace_sha256": digest}
            header_text = json.dumps(self.header)
        header = header_text.encode()
        header += b" " * (-len(header) % 8)
        self.path.write_bytes(len(header).to_bytes(8, "little") + header + self.data)
        return self.path


@pytest.fixture
def file(saved):
    return File(saved)


def every_type() -> Trace:
    """A trace whose signals are of every type that a signal may have, some of them cut."""
    built = equations(SPECS["experts"])
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8"]
    chosen = select("**") | select("blocks.*.attn.*", heads=[3, 0], tokens=[-1])
    recorded = Model(WeighedSession(built)).trace(IDS, capture=chosen)
    from attrs import evolve

    assert ml_dtypes
    signals = {
        site: evolve(signal, array=np.abs(np.nan_to_num(signal.array, neginf=-9)).astype(kinds[place % len(kinds)]))
        for place, (site, signal) in enumerate(recorded.signals.items())
    }
    return evolve(recorded, signals=signals, tokens=tuple(Token(id, str(id)) for id in IDS))
