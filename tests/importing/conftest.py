"""Recorded traces as other tools would keep them."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmtrace.model import Model
from llmtrace.schema.names import hooks
from tests.specs import SPECS, WeighedSession, equations

IDS = (1, 4, 2, 4, 7)


def recorded(kind: str = "sequential", dtype: str = "float32"):
    """An open model, and every site of it on one prompt."""
    opened = Model(WeighedSession(equations(SPECS[kind]), None, dtype))
    return opened, opened.trace(IDS, capture=list(opened.equations.steps))


def arrays(trace):
    """Its signals by site, and its token ids."""
    return {site: signal.array for site, signal in trace.signals.items()} | {"tokens": np.array(trace.ids)}


def as_hooks(trace):
    """Its signals under TransformerLens's names, behind a batch of one; those that have one."""
    named = {hooks(site)[0]: signal.array[None] for site, signal in trace.signals.items() if hooks(site)}
    return named | {"hook_tokens": np.array([trace.ids])}


def directory(path, dump):
    path.mkdir()
    for name, array in dump.items():
        np.save(path / f"{name}.npy", array)
    return path


def archive(path, dump):
    np.savez(path.with_suffix(".npz"), **dump)
    return path.with_suffix(".npz")


def compressed(path, dump):
    np.savez_compressed(path.with_suffix(".npz"), **dump)
    return path.with_suffix(".npz")


def safetensors(path, dump):
    save_file({name: np.ascontiguousarray(array) for name, array in dump.items()}, path.with_suffix(".safetensors"))
    return str(path.with_suffix(".safetensors"))


FILES = [directory, archive, compressed, safetensors]


@pytest.fixture(params=FILES, ids=lambda form: form.__name__)
def written(request, tmp_path):
    """`written(dump)`: the same in a file, of each kind."""
    return lambda dump: request.param(tmp_path / "dump", dump)
