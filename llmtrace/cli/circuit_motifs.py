"""`llmtrace circuit motifs`: which heads of a model fulfil a known dependency pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmtrace.cli.options import Command, Opening, Out, opening_options, out_options
from llmtrace.cli.parameters import complete_motif

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmtrace.circuits.motif import Motif
    from llmtrace.circuits.record import Ablation, HeadMatch, MotifMatches, Motifs

SHOWN = 10
"""Heads of one role that are listed without `--all`."""


@click.command(cls=Command)
@opening_options()
@click.option("--motif", "names", metavar="NAME", multiple=True, shell_complete=complete_motif,
              help="Look for this motif only; may be repeated. `llmtrace backends` lists them.")  # fmt: skip
@click.option("--motif-file", "files", metavar="FILE", multiple=True, type=click.Path(exists=True, dir_okay=False),
              help="Motifs of your own, as TOML: looked for, too, or alone where no --motif is named.")  # fmt: skip
@click.option("--prompts", "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
              help='Score on prompts from a file: one a line, or lines of JSON: "a text", or [5, 17, 3]. '
                   "Default: random tokens, repeated.")  # fmt: skip
@click.option(
    "--check",
    is_flag=True,
    help="Put each matched head at its mean, and compare what is lost with what random heads cost.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every random choice.")
@click.option("--all", "every", is_flag=True, help=f"List every head, not the best {SHOWN} of each role.")
@out_options()
def motifs(
    opening: Opening,
    names: tuple[str, ...],
    files: tuple[str, ...],
    file: str | None,
    check: bool,
    seed: int,
    every: bool,
    out: Out,
) -> None:
    """Say which heads of MODEL fulfil which motif: where they look, how surely, and on what evidence.

    A score is the mean attention mass on the motif's keys, over the rows where it is defined, then over prompts; beside it stand its 95 %
    interval over prompts and what uniform attention would give. A match is replicated evidence; with --check it becomes causal where the
    loss without the head is larger than without random heads.
    """
    from llmtrace.circuits.run import motifs as run
    from llmtrace.cli.opening import open_model
    from llmtrace.cli.output import answer
    from llmtrace.cli.progress import Progress
    from llmtrace.cli.prompts import asked_for

    wanted = _wanted(names, files)
    prompts = None if file is None else [each.prompt for each in asked_for((), (), file)]
    with open_model(opening, out) as model:
        with Progress(out) as progress:
            found = run(model, wanted, prompts=prompts, seed=seed, check=check, progress=progress)
        answer(out, found.to_json, lambda: show(found, every))


def _wanted(names: Sequence[str], files: Sequence[str]) -> list[Motif] | None:
    """The named motifs, then the others of files, each once; None for all. Raises `UnknownMethodError`, `CircuitError`."""
    from llmtrace.circuits.reading import read_motifs
    from llmtrace.plugins import plugins

    own = [motif for file in files for motif in read_motifs(file)]
    by_name = {motif.name: motif for motif in own}
    named = {name: by_name.get(name) or plugins().motif(name) for name in names}
    return list((named | by_name).values()) if names or files else None


def show(found: Motifs, every: bool) -> None:
    """Motif by motif: its heads, the best first; for people."""
    from llmtrace.cli.output import line

    line(f"scored on {found.prompts.about}" + _seed(found.prompts.seed))
    if found.checked_on is not None:
        line(f"checked on {found.checked_on.about}" + _seed(found.checked_on.seed))
    for each in found.found:
        line()
        _motif(each, every, found.checked)


def _seed(seed: int | None) -> str:
    return "" if seed is None else f" (seed {seed})"


def _motif(each: MotifMatches, every: bool, checked: bool) -> None:
    from llmtrace.cli.output import line, table

    motif = each.motif
    rate = "undefined" if each.false_positives is None else f"{each.false_positives:.1%}"
    line(f"{motif.name}: {motif.title}; false positives in shuffled rows {rate}")
    for note in each.notes:
        line(f"  note: {note}")
    if not each.heads:
        line(f"  no head matches{_nearest(each)}")
        return
    roles = motif.roles[::-1]  # the role that the others lead to stands last in a motif, and first here
    rows = []
    for role in roles:
        own = [match for match in each.heads if match.role == role]
        rows += [_row(each, match, checked) for match in (own if every else own[:SHOWN])]
    heads = ["role", "head", "score", "95 %", "chance", "p", "rows"]
    heads += (
        ["reads"] * bool(motif.edges)
        + ["without it", "alone", "random heads", "p"] * (checked and motif.check is not None)
        + ["evidence"]
    )
    table(heads, rows, right=("score", "chance", "p", "rows"))
    left = [
        f"{len(own) - SHOWN} more of {role}"
        for role in roles
        if len(own := [m for m in each.heads if m.role == role]) > SHOWN
    ]
    if left and not every:
        line(f"and {', '.join(left)} (--all)")


def _nearest(each: MotifMatches) -> str:
    """The head that comes nearest to the last role."""
    import numpy as np

    role = each.motif.roles[-1]
    scores = each.scores[role]
    if np.isnan(scores).all():
        return ""
    sign = 1 if each.motif.expect[role].comparison.startswith(">") else -1
    layer, head = np.unravel_index(np.nanargmax(sign * scores), scores.shape)
    return f"; the nearest, as {role}, is a{layer}.h{head} with {scores[layer, head]:.3f} ({each.motif.expect[role]})"


def _row(each: MotifMatches, match: HeadMatch, checked: bool) -> list[str]:
    ends = "" if match.interval is None else f"{match.interval[0]:.2f}–{match.interval[1]:.2f}"
    row = [
        match.role,
        str(match.node),
        f"{match.score:.3f}",
        ends,
        f"{match.chance:.3f}",
        "" if match.p is None else f"{match.p:.2g}",
        str(match.rows),
    ]
    if each.motif.edges:
        row.append(_reads(each, match))
    if checked and each.motif.check is not None:
        a = match.ablation
        row += ["", "", "", ""] if a is None else [
            f"{a.effect:+z.2f} nats ({a.interval[0]:+z.2f} … {a.interval[1]:+z.2f})",
            f"{a.alone:+z.2f}",
            _random(a),
            f"{a.p:.2g}",
        ]  # fmt: skip
    return [*row, match.rung.title]


def _random(ablation: Ablation) -> str:
    if ablation.random_mean is None or ablation.random_largest is None:
        return "none left"
    return f"{ablation.random_mean:+z.2f}, at most {ablation.random_largest:+z.2f}, of {ablation.random_heads}"


def _reads(each: MotifMatches, match: HeadMatch) -> str:
    """Whose output a head reads, by the strongest edges of its instances."""
    found = {
        str(edge.source): kappa
        for instance in each.instances
        for edge, kappa in instance.edges
        if edge.target == match.node
    }
    best = sorted(found.items(), key=lambda pair: -(pair[1] or 0))[:2]
    shown = [f"{node} (not tested)" if kappa is None else f"{node} (kappa {kappa:.1f})" for node, kappa in best]
    return ", ".join(shown) + (f" and {len(found) - 2} more" if len(found) > 2 else "")
