"""Frequencies out of phases that are known up to whole turns and some noise."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.dataflow.identify.phases import Turning, turning

RNG = np.random.default_rng(0)


def turned(frequency, length, noise=0.0, gain=1.0):
    """One head of complex pairs, before and after, as channels of two halves."""
    z = np.exp(1j * RNG.uniform(0, 6, (length, 1, len(frequency))))
    angle = np.arange(length)[:, None, None] * frequency
    after = gain * z * np.exp(1j * (angle + noise * RNG.normal(size=angle.shape)))
    after[0] = gain * z[0]
    return [np.concatenate([x.real, x.imag], -1) for x in (z, after)]


def test_noise_at_the_first_position_does_not_lose_count_of_the_turns():
    frequency = np.array([1.0, 0.3, 1e-2, 1e-4])
    found = turning(*turned(frequency, 4096, noise=2.0**-8), 8, "half", 2.0**-8)
    assert isinstance(found, Turning), found
    assert (np.abs(found.frequency - frequency) <= found.error).all()
    assert (found.error[1:] < [1e-2, 4e-4, 1e-4]).all()


@pytest.mark.parametrize("length", [2, 3, 100, 1000])
def test_frequencies_are_known_as_well_as_the_length_allows(length):
    frequency = np.array([1.0, 0.1, 1e-3])
    found = turning(*turned(frequency, length, gain=1.5), 6, "half", 2.0**-24)
    assert found.gain == pytest.approx(1.5, rel=1e-12)
    assert (np.abs(found.frequency - frequency) < 1e-12).all()
    assert found.error[2] < 4 * 2.0**-24 * (8 / (length - 1) + 1e-3)
