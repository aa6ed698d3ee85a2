"""`llmtrace demo`: the embedded model, whose answers are known. Needs no runtime; those that are installed are shown beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Command, Out, out_options
from llmtrace.cli.parameters import complete_backend

if TYPE_CHECKING:
    from llmtrace.cli.columns import Column
    from llmtrace.cli.known import Known

PAGE = "llmtrace-demo.html"


@click.command(cls=Command)
@click.option(
    "--html",
    metavar="FILE",
    default=PAGE,
    show_default=True,
    type=click.Path(dir_okay=False),
    help="Where to write the page.",
)
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option(
    "--backend", "only", metavar="NAME", multiple=True, shell_complete=complete_backend,
    help="Run these backends beside the reference; default: all that open the model. May be repeated.",
)  # fmt: skip
@out_options()
def demo(html: str, no_html: bool, only: tuple[str, ...], out: Out) -> int:
    """Trace the embedded hand-built model: known answers beside measured ones, its influence map, its equations checked.

    Exits 1 if a known answer is missed or an equation is violated.
    """
    from llmtrace.cli.columns import columns
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.known import known
    from llmtrace.cli.output import answer, say
    from llmtrace.data import DEMO
    from llmtrace.view.html import save_page

    if not no_html:
        check_destination(html)
    found = columns(only, out)
    answers = known(DEMO, tuple(token.id for token in found[0].lens.tokens))
    if not no_html:
        save_page(html, found[0].influences, found[0].lens, "llmtrace demo")
        say(out, f"wrote {html}: open it in a browser")
    page = None if no_html else html
    answer(out, lambda: document(answers, found, page), lambda: show(answers, found))
    return DONE if verdict(answers, found) == "as_known" else BAD_NEWS


def verdict(answers: list[Known], found: list[Column]) -> str:
    """`as_known`, or `missed` where any column misses an answer or violates an equation."""
    good = all(
        each.met(value) for column in found for each, value in zip(answers, column.measured(answers), strict=True)
    )
    return "as_known" if good and all(column.verdicts.verdict == "holds" for column in found) else "missed"


def document(answers: list[Known], found: list[Column], page: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    from attrs import asdict

    from llmtrace.data import DEMO, DEMO_MODEL, EMBEDDED
    from llmtrace.influence.document import number, token_document
    from llmtrace.schema import SCHEMA_VERSION
    from llmtrace.testing.handmade import ROLES

    measured = [column.measured(answers) for column in found]
    reference = found[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": DEMO_MODEL,
        "about": EMBEDDED["induction"].about,
        "prompt": DEMO.prompt,
        "tokens": [token_document(token) for token in reference.lens.tokens],
        "answer": DEMO.answer,
        "roles": [{"head_name": name} | asdict(role) for name, role in ROLES.items()],
        "verdict": verdict(answers, found),
        "known": [
            {
                "what": each.what,
                "head": each.head or None,
                "known": each.value,
                "within": each.within,
                "measured": [
                    {"backend": column.backend, "value": number(values[place]), "met": each.met(values[place])}
                    for column, values in zip(found, measured, strict=True)
                ],
            }
            for place, each in enumerate(answers)
        ],
        "backends": [
            {
                "name": column.backend,
                "runtime": column.verdicts.model.runtime,
                "versions": dict(column.verdicts.model.versions),
                "verdict": column.verdicts.verdict,
                "first_violated": column.verdicts.violated[0].site if column.verdicts.violated else None,
                "relative_error": number(column.apart),
                "relative_error_at": column.apart_at or None,
            }
            for column in found
        ],
        "scores": {
            influence.method: [float(score) for score in influence.scores] for influence in reference.influences
        },
        "page": page,
    }


def show(answers: list[Known], found: list[Column]) -> None:
    """What the model is, known answers beside measured ones, the influence map, and the equations; for people."""
    from llmtrace.cli.output import console, line, prompt_line, scientific, table
    from llmtrace.data import DEMO, EMBEDDED
    from llmtrace.testing.handmade import ROLES
    from llmtrace.view.text import heat_line

    line(f"The embedded model: {EMBEDDED['induction'].about}.")
    for name, role in ROLES.items():
        line(
            f"  {name}  {role.name} head: attends {role.attends}"
            + ("" if role.needed else " (nothing reads what it writes)")
        )
    line()
    prompt_line(found[0].lens.tokens)
    line(
        f"next: {DEMO.answer!r}, copied from position {DEMO.copied}, because position {DEMO.matched} holds the same token as the last one"
    )
    line()
    measured = [column.measured(answers) for column in found]
    rows = [
        (each.head, each.what, f"{each.value:.5f}", *(_cell(each, values[place]) for values in measured))
        for place, each in enumerate(answers)
    ]
    table(
        ("head", "what", "known", *(column.backend for column in found)),
        rows,
        right=("known", *(column.backend for column in found)),
    )
    line()
    for influence in found[0].influences:
        if influence.method in ("alti", "dla"):
            heat_line(influence, console())
    line()
    for column in found:
        checked = column.verdicts
        judged = f"{len(checked.judged)} equations {'hold' if not checked.violated else f'judged, first violated at {checked.violated[0].site}'}"
        against = (
            " (it runs by them)"
            if column.apart is None
            else f"; at most {scientific(column.apart)} from the reference ({column.apart_at})"
        )
        line(f"{column.backend}: {judged}{against}")


def _cell(each: Known, value: float | None) -> str:
    shown = "none" if value is None else f"{value:.5f}"
    return shown if each.met(value) else f"{shown} ✗"
