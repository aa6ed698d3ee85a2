"""What the page says of what was measured, and how sure it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.benchmarks.paired import Ratio, interval, paired
from tests.benchmarks.performance.environment import NotInstalledError, ready
from tests.benchmarks.performance.memory import STATUS, most
from tests.benchmarks.performance.page import Beside, Measured, page
from tests.benchmarks.performance.peers import Peer
from tests.benchmarks.performance.runs import EAGER, HUGE, RUNS

MIB = 1 << 20


def measured(peers) -> Measured:
    ratios = [Ratio("512 tokens", name, 1.5, 1.25, 1.0, 2.0, 9, (1.1, 1.4)) for name in RUNS]
    taken = dict.fromkeys(RUNS, 7 * MIB)
    return Measured(
        "wall", 2, {512: ratios}, {512: taken}, taken, {512: ratios}, peers, {"bare": {2: MIB, 8: 3 * MIB}}, 8192, 4
    )


@pytest.mark.parametrize(("rounds", "first"), [(5, 0), (6, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7)])
def test_the_interval_is_that_of_the_tables_for_a_median(rounds, first):
    assert interval(range(rounds)[::-1]) == (first, rounds - 1 - first)


def test_every_variant_runs_in_every_round_and_the_clock_is_the_one_given():
    calls, time = [], iter(range(1000))
    found = paired(
        "group", {"base": lambda: calls.append("base"), "other": lambda: calls.append("other")}, 3, lambda: next(time)
    )
    assert calls[2:] == ["base", "other", "other", "base", "base", "other"]
    assert [(each.name, each.ratio, each.seconds) for each in found] == [("base", 1, 1), ("other", 1, 1)]


def test_the_page_shows_every_run_with_its_aim_and_its_interval():
    text = page(measured([]))
    for name, run in RUNS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert ("1.25 (1.10–1.40)" in row) == (name != "bare")
        assert f"≤ {run.aim:g}" in row if run.aim else "≤" not in row
    assert "| bare | 1 MiB | 3 MiB |" in text


def test_a_peer_that_cannot_be_installed_is_said_to_be_missing():
    assert "| nnsight: not installed here (no network) |" in page(measured([Beside("nnsight", "no network", {}, {})]))


def test_what_stands_beside_a_peer_is_named_by_who_ran_it():
    ratios = [
        Ratio("512 tokens", name, 1.5, 1.25, 1.0, 2.0, 9, (1.1, 1.4)) for name in ("bare", EAGER, "nnsight, sixteen")
    ]
    text = page(measured([Beside("nnsight", "0.8.1", {512: ratios}, {})]))
    assert f"| LLMTrace, {EAGER}, beside nnsight | 1.25 (1.10–1.40) |" in text
    assert "| nnsight, sixteen (0.8.1) | 1.25 (1.10–1.40) |" in text


def test_runs_with_huge_pages_have_a_table_of_their_own():
    part = page(measured([])).split("## With huge pages")[1].split("\n## ")[0]
    assert "| everything, kept | 1.25 (1.10–1.40) |" in part
    assert set(HUGE) <= set(RUNS)


def test_what_pip_says_is_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotInstalledError, match="No matching distribution found for no-such-tool-anywhere"):
        ready(Peer("none", "no-such-tool-anywhere", lambda path, ids: {}), Path(tmp_path))


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux says what a process takes")
def test_the_most_memory_is_what_was_taken_on_the_way():
    def run() -> None:
        bytearray(b"x" * (64 * MIB))

    assert 60 * MIB < most(run) < 200 * MIB
    assert most(lambda: math.pi) < 8 * MIB
