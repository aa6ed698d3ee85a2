"""`python -m tests.benchmarks.motifs NAME=DOCUMENT … [--write docs/circuits.md]`: one model's heads on several runtimes, as a table.

A document is what `llmtrace circuit motifs MODEL --check --json` prints: minutes for each runtime. The table stands between two marks of the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.motifs", description=__doc__)
    parser.add_argument("documents", nargs="+", metavar="NAME=DOCUMENT")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    named = (each.rpartition("=") for each in given.documents)
    text = table({name: json.loads(Path(file).read_text(encoding="utf-8")) for name, _, file in named})
    print(text)
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        given.write.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}", encoding="utf-8")


def table(documents: Mapping[str, Any]) -> str:
    """A row a head that matches anywhere, the best by the first document first; a cell its score and what is lost without it."""
    lines = ["| motif | head | " + " | ".join(documents) + " |", "| --- | --- |" + " --- |" * len(documents)]
    found = {model: {motif["name"]: motif for motif in each["motifs"]} for model, each in documents.items()}
    names = [motif["name"] for motif in next(iter(documents.values()))["motifs"]]
    for name in names:
        role = list(found[next(iter(found))][name]["where"])[-1]
        matches = [
            {head["node"]: head for head in motifs[name]["heads"] if head["role"] == role} for motifs in found.values()
        ]
        for node in dict.fromkeys(node for each in matches for node in each):
            cells = [cell(each.get(node)) for each in matches]
            lines.append(f"| {name} | {node} | " + " | ".join(cells) + " |")
    rates = [
        f"{name} {max(motifs[name]['false_positive_rate'] or 0 for motifs in found.values()):.1%}" for name in names
    ]
    return "\n".join([*lines, "", f"False positives in shuffled rows, at most: {', '.join(rates)}."])


def cell(head: Mapping[str, Any] | None) -> str:
    """`0.843, +3.16` of a head whose ablation holds; in brackets where it does not."""
    if head is None:
        return "no match"
    lost = head["ablation"]
    if lost is None:
        return f"{head['score']:.3f}"
    return (
        f"{head['score']:.3f}, {lost['effect']:+.2f}"
        if lost["held"]
        else f"{head['score']:.3f} ({lost['effect']:+z.2f})"
    )


if __name__ == "__main__":
    main()
