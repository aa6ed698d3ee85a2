"""The table as a page of the documentation, and what it states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.coverage.counted import NAMED
from tests.benchmarks.coverage.outcome import Outcome

PAGE = Path(__file__).parents[3] / "docs" / "torch-coverage.md"
HEAD = """# Decoders in PyTorch

How much the PyTorch backend finds of each type of causal language model that transformers has. No type is described anywhere: a model is loaded,
run on two short prompts, and its spec is read off the operators that ran. The page is written by
`python -m tests.benchmarks.coverage --write docs/torch-coverage.md`, and a test holds what it states.

Each model is tiny and seeded: transformers' default config of the type with small sizes, and a layer of each kind that the config's lists
name. Matrices are enlarged, and vectors and what is one number throughout are jittered, so that no weight is trivially zero or one. It is saved
as a checkpoint in float32 and opened from there, as a user opens one, with the kernel of attention that transformers chooses, with `sdpa` where
transformers has it for the type, and with `eager`; and run on 19 tokens, a length that was not seen when it was opened. It is held to a second
model of the same seed, which llmtrace never saw.

A type is **structural** where under each of these kernels embed, the residual stream, what each branch adds to it, the final norm and the logits,
and in each layer with attention the pattern, `z` and `z_post`, are handed out or derived, follow from their equations where there are any, and
equal what the model computes:

* the logits are those of runs without capture, before and after, bit for bit, whether everything is captured or they alone;
* `resid_pre` of each block, `resid_post` of the block before, and the final norm are transformers' `output_hidden_states`, or `resid_post` of
  each block and `resid_pre` of the next where those are taken after a layer (Mamba), or what the norm that ends a layer makes, which here begins
  the next block (GPT); a layer of several attentions is as many blocks, and one that the prompt does not run is none;
* besides, every point of the stream is what a module of its layer reads or makes, in their order; embed is made by a module before the first layer,
  up to a factor;
* what a branch adds is how far two such points lie apart, or where branches are added together, what a module of its layer makes, up to a factor
  (where a model weighs channels, up to one a channel, and a shift), and of an attention after it and before the next;
* under every kernel the patterns are the softmaxes of transformers' eager attention, and its `output_attentions` where the type returns them; there
  are as many as softmaxes over the prompt ran: an attention that is opaque is counted as missing;
* `z` is what eager attention makes of pattern and values, and `z_post` what a matrix of the model reads between this attention and the next.

Equal is a relative error of each token (of a pattern: of each query of each head) within 1e-5; 1e-4 for what is derived, and for patterns and
`z`. A type is **full** where besides no branch is opaque, no site is missing, every equation holds (`verify`), and nothing that was captured goes
without a verdict or is zero throughout.
State-space, linear-attention and convolution layers (**mixers**) are opaque by design, so a type that has some is never full; where every
attention, norm and MLP beside them is all there, it says *but mixers*. The default config is what was measured: a checkpoint of the same type
whose config turns on something else may fare otherwise.

Equations take their weights from the checkpoint's file; where transformers joins tensors as it loads them (the experts of most types),
from the model's memory. Which are which is measured: a weight of the file stays as it was when the model's memory is overwritten.
"""
RULE = """## What counts

Decoders count: {counted} of the {all} types in transformers' mapping of causal language models. Of the others, {encoders} are encoder-decoders,
as their config says (`is_encoder_decoder`); {bidirectional} are bidirectional, since another last token changes the logits before it, as in
an encoder that is asked for logits; and {named} are named by hand:
"""


KEY = """✓ is yes; – is a type that was not opened. *Kernels*: of attention, transformers' own choice first; of experts. *Layers*: all, and
softmaxes over the prompt. *Sites*: handed out, and derived from them, under the first kernel."""


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page."""
    rows = sorted(outcomes, key=lambda each: each.kind)
    counted = [each for each in rows if each.counts]
    lines = [HEAD, _versions(), "", "## Totals", "", "| | types | share |", "| --- | ---: | ---: |"]
    for name, number in totals(counted).items():
        lines.append(f"| {name} | {number} | {100 * number / max(1, len(counted)):.0f} % |")
    lines += ["", *_unfiled(counted)]
    rest = [each for each in rows if not each.counts]
    named = {each.kind: each.why[0] for each in rest if each.kind in NAMED}
    bidirectional = [each.kind for each in rest if each.why == ("bidirectional",)]
    encoders = [each.kind for each in rest if each.kind not in named and each.kind not in bidirectional]
    rule = RULE.format(
        counted=len(counted), all=len(rows), encoders=len(encoders), bidirectional=len(bidirectional), named=len(named)
    )
    lines += ["", rule, *(f"* `{kind}`: {why}" for kind, why in named.items()), ""]
    lines += [
        f"Encoder-decoders: {_listed(encoders)}.",
        "",
        f"Bidirectional: {_listed(bidirectional)}.",
        "",
        "## Types",
        "",
    ]
    lines += [KEY, ""]
    lines += [
        "| type | kernels | layers | sites | structural | full | what is not, and why |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    lines += [row(each) for each in counted]
    lines += [
        "",
        "## Why not",
        "",
        "The same reasons, with the types of each; those of most types first.",
        "",
        *_reasons(counted),
    ]
    return "\n".join([*lines, ""])


def _unfiled(counted: Iterable[Outcome]) -> list[str]:
    """Which types have weights that are not read from their file."""
    experts: list[str] = []
    others: list[str] = []
    for each in counted:
        if each.unfiled:
            inside = all(name.startswith("blocks.L.mlp.") for name in each.unfiled)
            (experts if inside and each.experts else others).append(each.kind)
    return [
        f"Of the opened types, these take weights of MLPs with experts from memory: {_listed(experts)}.",
        "",
        f"These take others from there: {_listed(others)}.",
    ]


def _reasons(counted: Iterable[Outcome]) -> list[str]:
    found: dict[str, list[str]] = {}
    for each in counted:
        for said in dict.fromkeys(_cause(reason) for reason in each.why):
            found.setdefault(said, []).append(each.kind)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [f"* {_escaped(said)}: {_listed(kinds)}" for said, kinds in ordered]


def _cause(reason: str) -> str:
    """A reason without its numbers and places, so that what is alike falls together."""
    said = alike([reason])[0].removesuffix(" (with eager)").rstrip(".")
    if said.endswith("attentions are known"):
        return "Not every attention is known"
    said = re.sub(r" in [\w.]*\.layers\.[\w.]*| for \d+ tokens: .*|: relative error .*", "", said)
    return re.sub(r"\b\d+(\.\d+)?(e[-+]\d+)?( of \d+)?\b", "n", said)


def totals(counted: Iterable[Outcome]) -> dict[str, int]:
    """What holds of the types that count."""
    rows = list(counted)
    return {
        "count": len(rows),
        "structural": sum(each.structural for each in rows),
        "full": sum(each.full for each in rows),
        "full but for mixers": sum(each.aside and not each.full for each in rows),
        "every weight read from the file": sum(each.status == "measured" and not each.unfiled for each in rows),
        "opened, and not structural": sum(each.status == "measured" and not each.structural for each in rows),
        "refused": sum(each.status == "refused" for each in rows),
        "no tiny model, or stopped": sum(each.status in ("not built", "stopped") for each in rows),
    }


def row(one: Outcome) -> str:
    """A type as a row of the table."""
    opened = one.status == "measured"
    marks = ["✓" if each else "" if opened else "–" for each in (one.structural, one.full)]
    if one.aside and not one.full:
        marks[1] = "but mixers"
    said = "; ".join(alike(one.why))
    if not opened:
        said = f"{one.status}: {said}"
    sites = f"{one.captured} + {one.derived}" if opened else ""
    cells = [
        f"`{one.kind}`",
        "; ".join(filter(None, [", ".join(one.kernels), one.experts])),
        _count(one),
        sites,
        *marks,
        _escaped(said),
    ]
    return f"| {' | '.join(cells)} |"


def _count(one: Outcome) -> str:
    """Layers, and with attention of them."""
    return f"{one.layers}, {one.attentions}" if one.layers or one.attentions else ""


def stated_rows(text: str | None = None) -> dict[str, dict[str, str]]:
    """The rows of the page, by type and column."""
    names = ("kernels", "layers", "sites", "structural", "full", "why")
    table = _text(text).partition("## Types")[2]
    found = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `"))
    return {cells[0].strip("`"): dict(zip(names, [*cells[1:], *[""] * 6], strict=False)) for cells in found}


def stated_totals(text: str | None = None) -> dict[str, int]:
    """The totals of the page."""
    table = _text(text).partition("## Totals")[2].partition("## What counts")[0]
    return {name: int(number) for name, number in re.findall(r"^\| (\w[^|]*) \| (\d+) \|", table, flags=re.MULTILINE)}


def _text(text: str | None) -> str:
    return PAGE.read_text(encoding="utf-8") if text is None else text


def alike(reasons: Iterable[str]) -> list[str]:
    """Reasons that are the same but for the layer are one, and numbers of values and errors say nothing to a reader."""
    found = (re.sub(r"blocks\.\d+\.", "blocks.L.", each) for each in reasons)
    found = (re.sub(r" by [\d.e+]+ times", " by far more than", each) for each in found)
    return list(dict.fromkeys(re.sub(r", from [\d.]+ to [\d.]+", "", each) for each in found))


def _versions() -> str:
    names = ("torch", "transformers", "llmtrace-torch")
    said = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Measured on {datetime.now(UTC).date().isoformat()} with {said}."


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in kinds) or "none"


def _escaped(text: str) -> str:
    return text.replace("<", "‹").replace(">", "›").replace("|", "¦")
