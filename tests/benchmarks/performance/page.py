"""What was measured as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from attrs import frozen

from tests.benchmarks.paired import Ratio
from tests.benchmarks.performance.runs import EAGER, RUNS, SIXTEEN

HEAD = """# Performance

What looking at a model costs in PyTorch, in time and in memory, beside its own forward pass and beside other tools. The page is written by
`python -m tests.benchmarks.performance --write docs/performance.md`, which makes the checkpoint and the other tools' environments itself.

The model is SmolLM2-135M in float32 (30 layers, 9 heads, width 576), opened as any checkpoint is. **Bare** is the forward pass of the very
module that is looked at, with transformers' own choice of attention kernel (`sdpa`) and nothing looked at. All else is told as a ratio to it: in each
round every way of looking runs once, in an order that rotates; a row gives the median of the rounds' ratios and, in brackets, the interval in
which the median lies with 95 % confidence (the range, where there are fewer than six rounds). *Bare again* is the same as bare: how far its
interval is from 1 is how far this machine can tell ratios apart.
"""
WHAT = """**Streamed**: each signal is handed to an observer that keeps nothing. **Kept**: it is in a trace afterwards. **Floor**: the bare
pass, and as many bytes copied once into new memory as are kept, signal by signal. **Everything** is what `trace` records by default: 25 signals a
layer, scores and patterns among them, which the sdpa kernel keeps to itself and which are derived. **Sixteen** are the signals that all
tools here can hold: of each layer {sixteen}; of the end the final norm and the logits. What a trace keeps of
the model's own tensors is not copied: one that passes at several sites is there once, and what the model writes into later is found out when it
is opened, and copied. ALTI is `model.influence(…, method="alti")` over all layers.
"""
HUGE_PAGES = """## With huge pages

What is kept is new memory, which the system hands out page by page: at 4 KiB a page that takes longer than what is computed into it. With
`THP_MEM_ALLOC_ENABLE=1` in the environment when Python starts, PyTorch asks Linux for pages of 2 MiB, as NumPy does by itself. A tensor then takes
whole such pages. The same runs in a process of that kind, in ratio to its own bare pass:
"""
PEERS = """## Beside other tools

In one process each, with the tool's own environment over this one: the same PyTorch, the same transformers, and a copy of the model for
the tool, whose own pass is not bare's: it needs `eager` attention to see patterns. Where the kernel keeps patterns to itself, LLMTrace derives
them; the row *eager attention* is LLMTrace on a model that was opened as the tool's is. pip is blocked there once the tool is installed
(TransformerLens installs packages by itself). Ratios are to the bare `sdpa` pass, in the rounds that LLMTrace ran in too.
"""
LONG = """## Long prompts

A seeded llama of width 64 with 4 heads, on {tokens:,} tokens. A whole pattern of one layer would be {whole:,.0f} MiB. Where `tokens=` or `heads=` cut a
selection, or what a fold sees, the rows that are wanted are made of `rot_q` and `rot_k`, in chunks, and nothing else is. Memory is the most
that the run took over what was taken before it; of the bare pass, {bare}. It is measured with `MALLOC_MMAP_THRESHOLD_=262144`: without,
what glibc does not give back between small arrays adds up to some 8 MiB a layer, however little is kept.
"""
LIMITS = """## What this does not say

* Two cores of one machine. What is copied, and norms that are derived, run on one of them while the model's own operators use both, so more cores make
  the bare pass quicker and those no quicker; patterns and ALTI's vectors are worked on by all.
* While a PyTorch or llama.cpp model runs, NumPy's products keep to one thread (`llmtrace.threads`). Without that, its threads
  and the runtime's wait for each other.
* Each tap costs some 20 to 60 µs in Python, so that of a short prompt the share is larger. A dispatch mode, which sees queries and keys after
  the rotary embedding, costs some 20 µs for each operator of the attention module.
* Everything kept is bounded by new memory: pages that the system hands out for the first time cost more than what is written there.
* ALTI makes T² · d numbers for each layer, the vector from every source token to every query, and takes the L1 norm of each: at 512 tokens 2.3 billion,
  by 41 billion multiplications and additions, a third of what the model itself computes. No way of looking could come below that.
* Methods that answer for every query (ALTI, rollout, raw attention) hold [query, key] by their nature, and read whole patterns.
"""


@frozen
class Beside:
    """One peer's process."""

    name: str
    said: str
    """Its version, or why it is not here."""
    ratios: Mapping[int, Sequence[Ratio]]
    peaks: Mapping[str, int]


@frozen
class Measured:
    """All of it."""

    clock: str
    threads: int
    ratios: Mapping[int, Sequence[Ratio]]
    """By tokens."""
    sizes: Mapping[int, Mapping[str, int]]
    """Bytes that a run looks at, by tokens and run."""
    peaks: Mapping[str, int]
    huge: Mapping[int, Sequence[Ratio]]
    """As `ratios`, of runs with huge pages."""
    peers: Sequence[Beside]
    long: Mapping[str, Mapping[int, int]]
    """Bytes by run and layers."""
    long_tokens: int
    heads: int


def page(found: Measured) -> str:
    """The whole page."""
    lengths = list(found.ratios)
    longest = max(lengths)
    rounds = next(iter(found.ratios[longest])).rounds
    lines = [HEAD, _machine(found, rounds), "", "## Ways of looking", "", WHAT.format(sixteen=_sixteen())]
    columns = [f"{length} tokens" for length in lengths]
    lines += _table(
        ["", *columns, "aim", f"looks at, {longest} tokens", f"memory, {longest} tokens"],
        [
            [
                name,
                *(_ratio(found.ratios[length], name) for length in lengths),
                "" if RUNS[name].aim is None else f"≤ {RUNS[name].aim:g}",
                _mib(found.sizes[longest].get(name)),
                _mib(found.peaks.get(name)),
            ]
            for name in (each.name for each in found.ratios[longest])
        ],
    )
    bare = {length: _of(found.ratios[length], "bare").seconds for length in lengths}
    said = ", ".join(f"{1000 * seconds:,.0f} ms at {length} tokens" for length, seconds in bare.items())
    lines += [
        "",
        f"The bare pass took {said}. Memory is the most that a run took over what was taken before it, what it keeps included.",
        "",
    ]
    lines += [HUGE_PAGES, *_huge(found, lengths), "", PEERS, *_peers(found, lengths), ""]
    layers = sorted({each for row in found.long.values() for each in row})
    whole = found.heads * found.long_tokens**2 * 4 / 2**20
    bare_long = " and ".join(f"{_mib(size)} with {layer} layers" for layer, size in found.long["bare"].items())
    lines += [LONG.format(tokens=found.long_tokens, whole=whole, bare=bare_long)]
    lines += _table(
        ["", *(f"{each} layers" for each in layers)],
        [[name, *(_mib(row.get(each)) for each in layers)] for name, row in found.long.items()],
    )
    return "\n".join([*lines, "", LIMITS])


def _huge(found: Measured, lengths: Sequence[int]) -> list[str]:
    rows = [
        [name, *(_ratio(found.huge[length], name) for length in lengths)]
        for name in (each.name for each in found.huge[max(lengths)])
    ]
    return _table(["", *(f"{length} tokens" for length in lengths)], rows)


def _peers(found: Measured, lengths: Sequence[int]) -> list[str]:
    rows = []
    for peer in found.peers:
        if not peer.ratios:
            rows.append([f"{peer.name}: not installed here ({peer.said})", *[""] * (len(lengths) + 1)])
            continue
        for name in (each.name for each in peer.ratios[max(lengths)]):
            if name == "bare":
                continue
            label = f"LLMTrace, {name}, beside {peer.name}" if name in (*RUNS, EAGER) else f"{name} ({peer.said})"
            rows.append([label, *(_ratio(peer.ratios[each], name) for each in lengths), _mib(peer.peaks.get(name))])
    return _table(["", *(f"{each} tokens" for each in lengths), f"memory, {max(lengths)} tokens"], rows)


def _of(ratios: Sequence[Ratio], name: str) -> Ratio:
    return next(each for each in ratios if each.name == name)


def _ratio(ratios: Sequence[Ratio], name: str) -> str:
    found = _of(ratios, name)
    if name == "bare":
        return "1"
    return f"{found.ratio:.2f} ({found.interval[0]:.2f}–{found.interval[1]:.2f})"


def _mib(size: int | None) -> str:
    return "" if size is None or size < 0 else f"{size / 2**20:,.0f} MiB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def _sixteen() -> str:
    names = [name.removeprefix("blocks.*.") for name in SIXTEEN if name.startswith("blocks")]
    return ", ".join(f"`{name}`" for name in names)


def _machine(found: Measured, rounds: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy", "llmtrace-core"))
    clock = "processor time" if found.clock == "processor" else "time on the wall"
    return (
        f"Measured on {datetime.now(UTC).date().isoformat()}: {clock}, {rounds} rounds, {found.threads} threads on {os.cpu_count()} cores "
        f"({_processor()}), Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
