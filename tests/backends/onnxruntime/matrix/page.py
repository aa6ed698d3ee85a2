"""The table as a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from llmtrace.schema.steps import any_layer
from tests.backends.onnxruntime.exports import ARCHITECTURES
from tests.backends.onnxruntime.matrix.cell import Cell, coarse
from tests.backends.onnxruntime.matrix.versions import versions

CHANGED = (
    (
        "bloom, codegen, gpt_neox, gptj, phi (+extended)",
        "an activation that adds the bias before it (`FastGelu`, `BiasGelu`) is taken apart",
    ),
    ("opt (+extended)", "a product with its activation (`FusedGemm`) is taken apart"),
    (
        "gemma2, granite (+extended)",
        "a factor in a product (`FusedMatMul`) is the scale or the multiplier, not the matrix's own",
    ),
    ("starcoder2 (+extended)", "GELU's half may stand behind the next matrix"),
    ("bloom, gpt2, starcoder2 (+fused)", "the bias that a `SkipLayerNormalization` adds is the branch's"),
    ("opt", "an input that is summed up (`CumSum`) is a mask, though positions are counted from it"),
    (
        "gpt2, gpt_bigcode, smollm3, falcon-alibi (sdpa)",
        "without rotary, a factor on keys is no part of the split into heads",
    ),
    ("gpt_neo, mpt, opt", "the kernel of attention is read on prompts as short as the graph's longest"),
    ("gemma2 (genai-fp16)", "a rounding to half precision may be left out before a norm"),
    ("gpt_oss (genai)", "logits of sinks that `GroupQueryAttention` reads"),
    ("llama, qwen2 (genai, optimised)", "a sum inside a skip norm is a value of its own for reading"),
    (
        "mixtral, olmoe, qwen3_moe, gpt_oss",
        "experts: each for every token, the chosen ones' matrices looked up, or one operator for all",
    ),
    ("gpt_oss", "sinks beside the scores, a gate with a clamp"),
    ("phi3, llama-yarn", "rotary tables that depend on the prompt's length, read at several lengths"),
    ("mistral, cohere2, gemma3, olmo3", "windows that only long prompts reach, read far from the diagonal"),
    (
        "gpt2 by onnxruntime.transformers, all (+int8)",
        "matrices, biases and roundings inside operators are spelled out in a copy for reading",
    ),
)
"""Rules that were changed for an architecture, and which it was changed for."""
AFTERWARDS = (
    "Made and opened when the rules for what exporters write were done, and right without a change: `dynamo-23-sdpa` of llama-tied, llama-biased, llama-yarn, "
    "gemma, gpt_bigcode, olmo, olmo3, falcon-two-norms, stablelm-parallel, cohere2, exaone4, nemotron, glm4, helium, ernie4_5, "
    "hunyuan_v1_dense, mixtral, olmoe; `genai-fp16` and `genai-int4` of gemma, ernie4_5, hunyuan_v1_dense, llama-biased, olmo; `dynamo-18` of "
    "llama-tied, llama-biased, llama-yarn, gemma, olmo, olmo3, stablelm-parallel, nemotron, hunyuan_v1_dense; `optimum-past` of nemotron, helium."
)
HEAD = """# Exports

What this page counts: graphs from the exporters that people use, of one tiny seeded model an architecture, and how much of each this backend
finds. It is written by `python -m tests.backends.onnxruntime.matrix --write docs/onnxruntime-exports.md`, which makes the graphs, opens
them and compares them, site by site, with PyTorch on the same checkpoint and prompt. Only its last section is written by hand.

**Applicable** are the sites of the checkpoint's own spec, but for a head's `result` and a norm's `scale` and `normalized`, which no graph
holds as they are. **Located** are those that are handed out, and those that the equations derive within their block from what is handed
out: where one operator does all of attention, `rot_q`, `rot_k`, scores and pattern are never in the graph. **Equal** are the located ones
within 1e-5 of PyTorch's (relative error of the whole signal).

Some graphs **differ**: the exporter lost something, and the graph computes another model than its checkpoint. The spec that was read says
so. Their sites are compared with what the equations of *that* spec make of the checkpoint's weights, so a difference that is not named
would show as unequal. So are those of `falcon-alibi`, to which transformers' eager attention adds ALiBi twice. **Coarse** graphs (float16, int8, int4) have other weights than the checkpoint: of their sites is counted what
follows from their own weights, within the tolerance of `verify`; that says of a derived site nothing, since that is how it is made.
"""


def share(cells: Iterable[Cell]) -> float:
    """Of the applicable sites of the graphs that run, those that are located and equal; 1 where there are none."""
    measured = [cell for cell in cells if cell.status == "measured"]
    return sum(cell.equal for cell in measured) / (sum(cell.applicable for cell in measured) or 1) if measured else 1.0


def page(cells: Sequence[Cell], columns: Sequence[str]) -> str:
    """The page, in Markdown; `columns` are the exporters in order."""
    wanted = [cell for cell in cells if cell.exporter in columns]
    known = {cell.name: cell for cell in wanted}
    rows = [each for each in ARCHITECTURES if any(cell.architecture == each for cell in wanted)]
    plain = [each for each in columns if "+" not in each]
    rewritten = [each for each in columns if "+" in each]
    said = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        HEAD,
        f"Measured on {datetime.now(UTC).date().isoformat()} with {said}.",
        "",
        "## In sum",
        "",
        *_sums(wanted, columns),
    ]
    lines += ["", "## As exported", "", LEGEND, "", *_table(known, rows, plain)]
    if rewritten:
        lines += ["", "## Rewritten afterwards", "", REWRITTEN, "", *_table(known, rows, rewritten)]
    for title, words, found in (
        (
            "What differs from its checkpoint",
            "Each field, as in the checkpoint → as in the graph.",
            _grouped(wanted, _differs),
        ),
        ("What is missed", "", _grouped(wanted, _missed)),
        ("What is not equal", "", _grouped(wanted, _unequal)),
        ("What does not run", "Made by the exporter, and refused.", _grouped(wanted, _refused)),
        ("What is not exported", "Refused by the exporter.", _grouped(wanted, _unexported)),
    ):
        lines += ["", f"## {title}", "", *([words, ""] if words else []), *(found or ["Nothing."])]
    lines += ["", "## Which rules were written with which graphs", "", *_origin()]
    return "\n".join(lines) + "\n"


SAME = (
    (r"^\S+ does not run on a prompt of \d+ tokens.*?length\. ", ""),
    (r"…/\S+model\.onnx", "the graph"),
    (r"The \S*checkpoints/\S+ model", "The model"),
    (r"\S*checkpoints/\S+", "the checkpoint"),
    (r"a \w+ model", "a model"),
    (r"\w+For\w*LM ", "The model "),
    (r" on [^:]*\[[^:]*:", ":"),
    (r"Non-zero status code returned while running |Name:\S+|Status Message: |/onnxruntime_src/\S+", ""),
    (r"model\.layers\.\d+", "model.layers.L"),
    (r" If this prompt.*| Export the model again.*|, input: .*", ""),
)
"""What tells one refusal from another of the same reason, and what is said in its place."""
LEGEND = (
    "`66/66 8e-7`: equal of applicable, and the worst relative error of those that are equal; `d12`: 12 of them derived; `≠`: the graph "
    "differs from its checkpoint; `coarse`: held to its own weights; ✗ does not run, – is not exported, empty was not tried. All below."
)
REWRITTEN = (
    "`+extended`, `+all`: ONNX Runtime's own optimiser, saved at that level; `+fused`: `onnxruntime.transformers.optimizer`; `+fp16`, "
    "`+int8`, `+int4`: its converter to half precision and its quantisers."
)


def _sums(cells: Sequence[Cell], columns: Sequence[str]) -> list[str]:
    lines = [
        "| exporter | graphs that run | applicable | handed out | derived | equal | share |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, chosen in (
        *((each, [cell for cell in cells if cell.exporter == each]) for each in columns),
        ("**all, with the checkpoint's weights**", [cell for cell in cells if not coarse(cell.exporter)]),
        ("**all, coarse**", [cell for cell in cells if coarse(cell.exporter)]),
    ):
        measured = [cell for cell in chosen if cell.status == "measured"]
        if not measured:
            continue
        sums = [
            sum(getattr(cell, field) for cell in measured) for field in ("applicable", "captured", "derived", "equal")
        ]
        ran = f"{len(measured)} of {sum(cell.status != 'not exported' for cell in chosen)}"
        lines.append(f"| {name} | {ran} | {' | '.join(map(str, sums))} | {100 * share(measured):.1f} % |")
    return lines


def _table(known: dict[tuple[str, str], Cell], rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for row in rows:
        shown = [_shown(known[column, row]) if (column, row) in known else "" for column in columns]
        if any(shown):
            lines.append(f"| {row} | {' | '.join(shown)} |")
    return lines


def _shown(cell: Cell) -> str:
    if cell.status != "measured":
        return "–" if cell.status == "not exported" else "✗"
    said = [f"{cell.equal}/{cell.applicable}", "coarse" if coarse(cell.exporter) else _power(cell.worst)]
    said += [f"d{cell.derived}"] * bool(cell.derived) + ["≠ " + ", ".join(_fields(cell))] * bool(cell.differs)
    return " ".join(said)


def _power(number: float) -> str:
    return re.sub(r"e-0?", "e-", f"{number:.0e}")


def _fields(cell: Cell) -> list[str]:
    """The last word of what differs: `window`, `eps`."""
    return list(dict.fromkeys(re.split(r"[ .]", line.split(" ")[0])[-1] for line in cell.differs))


def _grouped(cells: Iterable[Cell], reasons: Callable[[Cell], Iterator[str]]) -> list[str]:
    """One line a reason, with the exporters and architectures that it is true of."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        for reason in dict.fromkeys(reasons(cell)):
            found.setdefault(reason, {}).setdefault(cell.exporter, []).append(cell.architecture)
    lines = []
    for reason, where in found.items():
        places: dict[tuple[str, ...], list[str]] = {}
        for exporter, architectures in where.items():
            places.setdefault(tuple(architectures), []).append(exporter)
        said = "; ".join(f"{', '.join(who)} ({', '.join(names)})" for who, names in places.items())
        lines.append(f"* {reason}: {said}")
    return lines


def _differs(cell: Cell) -> Iterator[str]:
    for line in cell.differs:
        yield f"`{_without_layers(line)}`"


def _without_layers(line: str) -> str:
    """A norm is a norm, and a block a block, where the same is true of several."""
    return re.sub(
        r"^(blocks\.\S+\.(ln\d|attn\.post|mlp\.post|[qk]_norm)|ln_final)\.",
        "norms.",
        line.replace("blocks.*.", "blocks.L."),
    )


def _missed(cell: Cell) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for site, why in cell.missed.items():
        by_reason.setdefault(any_layer(why), []).append(any_layer(site))
    for why, sites in by_reason.items():
        yield f"{', '.join(f'`{site}`' for site in dict.fromkeys(sites))}, since {_escaped(why)}"


def _unequal(cell: Cell) -> Iterator[str]:
    sites = dict.fromkeys(any_layer(site) for site in cell.unequal)
    if sites:
        yield ", ".join(f"`{site}`" for site in sites)


def _refused(cell: Cell) -> Iterator[str]:
    if cell.status == "refused":
        yield _escaped(_plain(cell))


def _unexported(cell: Cell) -> Iterator[str]:
    if cell.status == "not exported":
        yield _escaped(_plain(cell))


def _plain(cell: Cell) -> str:
    """A reason without what tells one graph from another."""
    text = cell.why
    for pattern, said in SAME:
        text = re.sub(pattern, said, text)
    return re.sub(r"\s+", " ", text)[:240].rstrip(". ")


def _escaped(text: str) -> str:
    return text.replace("<", "‹").replace(">", "›").replace("|", "¦")


def _origin() -> list[str]:
    said = (
        "When the rules for dense decoders were written, the graphs of llama from all exporters were in view. Everything "
        "else was then opened with these rules, and most of it was right at once. Where it was not, a rule was changed; the graphs that showed "
        "it are no test of that rule any more:"
    )
    return [said, "", *(f"* {where}: {what}." for where, what in CHANGED), "", AFTERWARDS]
