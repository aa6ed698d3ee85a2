"""The page of sites: every equation of the schema with its axes, its inputs, its weights and what rounding is expected.

The rows come from a few **specimens**, made-up specs that between them switch on every feature; an equation that no specimen shows
is an error, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import evolve, frozen

from llmtrace.schema.sites import EQUATIONS
from llmtrace.schema.steps import Step, steps
from llmtrace.spec import (
    Attention,
    Block,
    Branch,
    Carry,
    Embedding,
    Gate,
    GatedMlp,
    Head,
    Latent,
    Mixer,
    Mlp,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    PreNorm,
    Rotary,
    Shared,
    Unembedding,
)
from table import NOTICE, code, table

INTRO = """# Sites and their equations

A site is a place in the computation; its equation says how the value there follows from other sites and from weights. The same
functions run the reference backend, derive what a runtime does not hand out, and judge a capture. `L` is the number of a block. `x`
is what the part reads: the norm's output in a sequential block, a stream site where a branch has no norm. A weight in brackets
exists only in some models; which, the spec says. "Sums over" is the axis whose length sets the rounding that is expected.

Arrays have no batch axis. `token`, `query` and `key` are as long as the prompt; masked scores are `-inf`.

"""
WEIGHTS = """## Weights

The shape of a weight is the lengths of its axes, in this order; a backend hands it out so, whatever its file has. `llmtrace.sites(spec)`
names those that one model has. Norm weights are *as multiplied*. A weight that stands here twice has the axes that its part's spec
says: experts, or a norm over the whole width.

"""
SECTIONS = {
    "The ends": r"embed|pos_embed|head\.\w+|logits",
    "The residual stream": r"blocks\.L\.\w+",
    "Norms": r".*(ln1|ln2|ln_final|_norm|_post)\.(scale|normalized|out)",
    "Attention": r"blocks\.L\.attn\.\w+",
    "MLP": r"blocks\.L\.mlp\.\w+",
}
RECORDS = {"Mlp": "plain", "GatedMlp": "gated", "Moe": "experts"}


@frozen
class Shown:
    """One line of the page."""

    site: str
    kind: str
    step: Step


def specimens() -> Iterator[ModelSpec]:
    """Specs that between them have every site."""
    norm = Norm(1e-5, bias=True)
    attention = Attention(
        4, 2, 16, 16, 0.25, rotary=Rotary(1e4, 16), q_norm=Norm(1e-5, over="d_head"), k_norm=Norm(1e-5, over="d_head"),
        sinks=True, z_norm=Norm(1e-5, over="d_value", each="head"), gate=Gate(bias=True), biases="QKVO",
    )  # fmt: skip
    carry = Carry(weight=True, bias=True)
    gated = GatedMlp(96, "silu", bias=True)
    shared = Shared(GatedMlp(48, "silu"), gated=True)
    experts = Moe(4, 2, gated, router_bias=True, correction=True, shared=shared)
    plain = evolve(experts, expert=Mlp(96, "relu2", bias=True), shared=None, weighs="inputs")
    normed = evolve(gated, inner_norm=Norm(1e-5, over="d_mlp", bias=True))
    for module in (normed, experts, plain, Mlp(96, "xielu", bias=True)):
        block = Block(
            (PreNorm("ln1", "resid_pre", norm), PreNorm("ln2", "resid_mid", norm)),
            (
                Branch("attn", "ln1.out", attention, post=norm, weight=True),
                Branch("mlp", "ln2.out", module, post=norm, weight=True),
            ),
            carry_pre=carry, carry_mid=carry, carry_post=carry,
        )  # fmt: skip
        ends = Embedding(norm=norm), Positions(64), Unembedding(bias=True)
        yield ModelSpec("specimen", 64, 97, None, (block, block), norm, *ends)
    wide = {"q_norm": Norm(1e-5, over="head d_head"), "k_norm": Norm(1e-5, over="kv_head d_head")}
    late = evolve(attention, norm_after_rotary=True, **wide)
    mixed = Block(
        (PreNorm("ln1", "resid_pre", norm),),
        (Branch("mixer", "ln1.out", Mixer("mamba2")), Branch("attn", "ln1.out", late)),
    )
    yield ModelSpec("specimen", 64, 97, None, (mixed, mixed), norm)
    latent = Attention(
        4, 4, 16, 16, 0.25, q_latent=Latent("q_rank", 8, norm_of("q_rank"), True), kv_latent=Latent("kv_rank", 8, norm_of("kv_rank"), True),
        shared=4,
    )  # fmt: skip
    made = Block((), (Branch("attn", "resid_pre", latent),))
    yield ModelSpec("specimen", 64, 97, None, (made, made), norm)
    chosen = Attention(4, 2, 16, 16, 0.25, selective=True, projected=False)
    opaque = Block((), (Branch("attn", "resid_pre", evolve(chosen, masked=True, mixed=False)),))
    yield ModelSpec("specimen", 64, 97, None, (opaque, opaque), norm)
    opaque = Block((), (Branch("attn", "resid_pre", chosen),))
    sinking = Block((), (Branch("attn", "resid_pre", evolve(chosen, sinks=True, sinks_after=True)),))
    yield ModelSpec("specimen", 64, 97, None, (opaque, sinking), norm, head=Head("gelu", True, norm))


def norm_of(axis: str) -> Norm:
    """Of a latent."""
    return Norm(1e-5, over=axis, bias=True)


def shown() -> list[Shown]:
    """Every site once for each record that has an equation for it. Raises `LookupError` if an equation is missing."""
    found: dict[tuple[str, str], Shown] = {}
    seen = set()
    for spec in specimens():
        for step in steps(spec).values():
            seen.add(step.equation.fn)
            if step.layer in (None, 1):
                site, kind = general(step.site), type(step.record).__name__
                found.setdefault((site, kind), Shown(site, kind, step))
    missing = [row.fn.__qualname__ for rows in EQUATIONS.values() for row in rows.values() if row.fn not in seen]
    if missing:
        raise LookupError(f"No specimen shows the equations {missing}: extend specimens().")
    return list(found.values())


def general(name: str) -> str:
    """A site of block 1 as a template; block 0 is the block before."""
    return re.sub(r"^blocks\.0\.", "blocks.{L-1}.", re.sub(r"^blocks\.1\.", "blocks.L.", name))


def page() -> str:
    """The whole page."""
    text, rows = NOTICE + INTRO, shown()
    for title, pattern in SECTIONS.items():
        section = [row for row in rows if re.fullmatch(pattern, row.site)]
        rows = [row for row in rows if row not in section]
        text += f"## {title}\n\n"
        text += _norms(section) if title == "Norms" else table(HEAD, map(_line, section))
    if rows:
        raise LookupError(f"No section of the page shows {[row.site for row in rows]}.")
    return (text + WEIGHTS + table(("weight", "axes", "read by"), _weight_rows())).rstrip() + "\n"


HEAD = ("site", "axes", "equation", "reads", "weights", "sums over")


def _line(row: Shown) -> tuple[str, ...]:
    step = row.step
    kind = f" ({RECORDS[row.kind]})" if row.kind in RECORDS else ""
    marks = [
        mark for mark, on in (("on request", step.equation.on_request), ("captured only", step.equation.opaque)) if on
    ]
    return (
        code(row.site) + kind,
        " ".join(step.axes),
        step.equation.formula + "".join(f" *({mark})*" for mark in marks),
        ", ".join(code(general(name)) for name in step.inputs),
        _weights(step),
        " ".join(step.equation.sums),
    )


def _weights(step: Step) -> str:
    names = []
    for argument in step.equation.arguments:
        if argument.name in step.weights:
            name = code(general(step.weights[argument.name].name))
            names.append(f"[{name}]" if argument.default is None else name)
    return ", ".join(names)


def _weight_rows() -> Iterator[tuple[str, ...]]:
    """Every weight once for each way in which its axes may be, with the sites whose equations read it."""
    readers: dict[tuple[str, str], dict[str, None]] = {}
    for step in (step for spec in specimens() for step in steps(spec).values() if step.layer in (None, 1)):
        for weight in step.weights.values():
            key = general(weight.name), " ".join(weight.axes)
            readers.setdefault(key, {})[general(step.site)] = None
    for (name, axes), sites in readers.items():
        yield code(name), axes, ", ".join(map(code, sites))


def _norms(section: list[Shown]) -> str:
    """The three sites of a norm once, and the places where a norm may stand."""
    places = dict.fromkeys(row.site.rpartition(".")[0] for row in section)
    text = f"The same three sites stand under each of {', '.join(map(code, places))}.\n\n"
    parts = [row for row in section if row.site.startswith("blocks.L.ln1.")]
    return text + table(HEAD, [_line(row) for row in parts])
