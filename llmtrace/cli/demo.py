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

    Exits 1 if a known answer is missed, an equation is violated, or a backend is far from the reference.
    """
    from llmtrace.cli.columns import columns
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.known import known
    from llmtrace.cli.output import answer, say
    from llmtrace.data import DEMO
    from llmtrace.view.html import save_page

    if not no_html:
        check_destination(html)
    running = columns(only, out)
    found = [next(running)]  # the reference, which is there in a moment; a runtime takes seconds to be imported
    answers = known(DEMO, tuple(token.id for token in found[0].lens.tokens))
    if not no_html:
        save_page(html, found[0].influences, found[0].lens, "llmtrace demo")
        say(out, f"wrote {html}: open it in a browser")
    if not out.json:
        show(answers, found[0])
    for column in running:
        found.append(column)
        if not out.json:
            show_beside(answers, column)
    page = None if no_html else html
    answer(out, lambda: document(answers, found, page), lambda: None)
    return DONE if verdict(answers, found) == "as_known" else BAD_NEWS


def verdict(answers: list[Known], found: list[Column]) -> str:
    """`as_known`, or `missed` where any column misses an answer, violates an equation, or is far from the reference."""
    return "as_known" if all(column_is_good(answers, column) for column in found) else "missed"


def column_is_good(answers: list[Known], column: Column) -> bool:
    """Whether one backend gives what is known."""
    met = all(each.met(value) for each, value in zip(answers, column.measured(answers), strict=True))
    return met and column.verdicts.verdict == "holds" and column.near


def document(answers: list[Known], found: list[Column], page: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    from attrs import asdict

    from llmtrace.data import DEMO, DEMO_MODEL, EMBEDDED
    from llmtrace.data.roles import ROLES
    from llmtrace.documents import number, token_document
    from llmtrace.schema import SCHEMA_VERSION

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
                "near_reference": column.near,
            }
            for column in found
        ],
        "scores": {
            influence.method: [float(score) for score in influence.scores] for influence in reference.influences
        },
        "page": page,
    }


def show(answers: list[Known], reference: Column) -> None:
    """What the model is, known answers beside measured ones, the influence map, and the equations; for people."""
    from llmtrace.cli.output import console, line, prompt_line, table
    from llmtrace.data import DEMO, EMBEDDED
    from llmtrace.data.roles import ROLES
    from llmtrace.view.text import heat_line

    line(f"The embedded model: {EMBEDDED['induction'].about}.")
    for name, role in ROLES.items():
        unread = "" if role.needed else " (nothing reads what it writes)"
        line(f"  {name}  {role.name} head: attends {role.attends}{unread}")
    line()
    prompt_line(reference.lens.tokens)
    because = f"because position {DEMO.matched} holds the same token as the last one"
    line(f"next: {DEMO.answer!r}, copied from position {DEMO.copied}, {because}")
    line()
    rows = [
        (each.head, each.what, f"{each.value:.5f}", f"±{each.within:g}", _cell(each, value))
        for each, value in zip(answers, reference.measured(answers), strict=True)
    ]
    table(("head", "what", "known", "within", "measured"), rows, right=("known", "within", "measured"))
    line()
    for influence in reference.influences:
        if influence.method in ("alti", "dla"):
            heat_line(influence, console())
    line()
    line(f"{reference.backend}: {_equations(reference)} (it runs by them)")


def show_beside(answers: list[Known], column: Column) -> None:
    """One backend beside the reference: how many answers it meets, which it misses, its equations, and how far apart it is."""
    from llmtrace.cli.output import line, scientific

    rows = list(zip(answers, column.measured(answers), strict=True))
    missed = [(each, value) for each, value in rows if not each.met(value)]
    far = "" if column.near else " ✗"
    apart = f"at most {scientific(column.apart or 0.0)} from the reference ({column.apart_at}){far}"
    line(f"{column.backend}: {len(rows) - len(missed)} of {len(rows)} known answers; {_equations(column)}; {apart}")
    for each, value in missed:
        what = f"{each.head} {each.what}" if each.head else each.what
        line(f"  {what}: known {each.value:.5f} ±{each.within:g}, measured {_cell(each, value)}")


def _equations(column: Column) -> str:
    checked = column.verdicts
    if checked.violated:
        return f"{len(checked.judged)} equations judged, first violated at {checked.violated[0].site} ✗"
    return f"{len(checked.judged)} equations hold"


def _cell(each: Known, value: float | None) -> str:
    shown = "none" if value is None else f"{value:.5f}"
    return shown if each.met(value) else f"{shown} ✗"
