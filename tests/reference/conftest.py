"""A small model with a branch that no equation computes, put together by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.model import Model
from llmtrace.reference.session import ReferenceSession
from llmtrace.spec import Block, Branch, Mixer, ModelSpec, Norm, PreNorm
from llmtrace.trace import ModelInfo

INFO = ModelInfo("by hand", "reference", "NumPy")


class Observer:
    """Writes down what it is told, in order."""

    def __init__(self):
        self.events = []
        self.arrays = {}

    def signal(self, site, array):
        self.events.append(site)
        self.arrays[site] = array

    def layer_done(self, layer):
        self.events.append(layer)


@pytest.fixture
def observer():
    return Observer()


def mixing():
    """Width 2, a vocabulary of 3, two blocks that are one state-space branch each, and its weights."""
    norm = Norm(eps=0.0, weight=False)
    block = Block((PreNorm("ln1", "resid_pre", norm),), (Branch("mixer", "ln1.out", Mixer("mamba")),))
    spec = ModelSpec("by_hand", 2, 3, None, (block, block), norm)
    weights = {
        "embed.W_E": np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]),
        "unembed.W_U": np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
    }
    return spec, weights


@pytest.fixture
def mixer_session():
    spec, weights = mixing()
    return ReferenceSession(spec, weights, dict.fromkeys(weights, "float64"), "float64", INFO)


@pytest.fixture
def mixer_model(mixer_session):
    return Model(mixer_session)
