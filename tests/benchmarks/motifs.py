"""`python -m tests.benchmarks.motifs NAME=BACKEND:MODEL … [--write docs/circuits.md]`: one model's heads on several runtimes, as a table.

The table stands between two marks of the page. It takes minutes: every head of the table is ablated on every runtime.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import llmtrace
from llmtrace.circuits import Motifs, motifs
from llmtrace.circuits.record import HeadMatch

NAMES = ("induction", "previous-token", "duplicate-token")
BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.motifs", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=BACKEND:MODEL")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    text = table({name: measured(model) for name, _, model in (each.partition("=") for each in given.models)})
    print(text)
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        given.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def measured(source: str) -> Motifs:
    """One model's motifs, checked; one thread, which on a busy machine is the quickest."""
    backend = source.partition(":")[0]
    with llmtrace.open(source, options={"threads": 1}) as model:
        print(f"{source} on {backend} …", flush=True)
        return motifs(model, NAMES, check=True)


def table(found: Mapping[str, Motifs]) -> str:
    """A row a head that matches anywhere, the best by the first model first; a cell its score and what is lost without it."""
    lines = ["| motif | head | " + " | ".join(found) + " |", "| --- | --- |" + " --- |" * len(found)]
    for name in NAMES:
        matches = {
            model: {str(match.node): match for match in each[name].heads if match.role == each[name].motif.roles[-1]}
            for model, each in found.items()
        }
        heads = dict.fromkeys(node for each in matches.values() for node in each)
        for node in heads:
            layer, head = node[1:].split(".h")
            cells = [cell(each.get(node)) for each in matches.values()]
            lines.append(f"| {name} | L{layer}H{head} | " + " | ".join(cells) + " |")
    rates = {name: max(each[name].false_positives or 0.0 for each in found.values()) for name in NAMES}
    lines.append("")
    lines.append(
        "False positives in shuffled rows, at most: "
        + ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
        + "."
    )
    return "\n".join(lines)


def cell(match: HeadMatch | None) -> str:
    """`0.84, +3.16 nats` of a head whose ablation holds; in brackets where it does not."""
    if match is None:
        return "no match"
    lost = match.ablation
    if lost is None:
        return f"{match.score:.3f}"
    return f"{match.score:.3f}, {lost.effect:+.2f}" if lost.held else f"{match.score:.3f} ({lost.effect:+.2f})"


if __name__ == "__main__":
    main()
