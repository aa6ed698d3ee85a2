"""`llmtrace check-backend`: an installed backend, held to the conformance kit."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from llmtrace.cli.exits import BAD_NEWS, DONE
from llmtrace.cli.options import Command, Out, out_options
from llmtrace.cli.parameters import complete_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmtrace.testing.outcome import Check, Outcome

ONCE = "once"
"""Heads the column of what does not depend on a family."""
SHOWN = 3
"""So many tests with the same message are named."""
EVERY = 25
"""After so many tests, a word on how far it is."""


@click.command(cls=Command)
@click.argument("name", metavar="NAME", shell_complete=complete_backend)
@click.option(
    "--family", "families", metavar="FAMILY", multiple=True, help="Only on this family of models. May be repeated."
)
@click.option(
    "--test",
    "tests",
    metavar="WORDS",
    multiple=True,
    help='Only tests called like this: "every equation". May be repeated.',
)
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Seconds that one test may take."
)
@out_options()
def check_backend(name: str, families: tuple[str, ...], tests: tuple[str, ...], timeout: float, out: Out) -> int:
    """Hold the installed backend NAME to the conformance kit, on tiny models of several families that are made for it.

    The table is Markdown, for a README: ✓ passed, ✗ failed, – left out (an ability that it does not claim), and the kind of a declared gap. Exits 1 if a test failed; a
    gap whose test passes has failed. Needs pytest. The directory's own tests and settings are not looked at.
    """
    from llmtrace.cli.output import answer, say
    from llmtrace.testing.checking import check

    said: Counter[str] = Counter()

    def progress(outcome: Outcome, done: int, of: int) -> None:
        if outcome.outcome == "failed":
            said[outcome.message] += 1
            say(
                out,
                f"failed: {named(outcome)}: {outcome.message}"
                if said[outcome.message] == 1
                else f"failed: {named(outcome)}: the same",
            )
        if done % EVERY == 0 and done < of:
            say(out, f"{done} of {of} tests …")

    say(out, f"holding {name} to the conformance kit …")
    found = check(name, families=families, tests=tests, patience=timeout, progress=progress)
    answer(out, found.to_json, lambda: show(found))
    return DONE if found.passes else BAD_NEWS


def words(test: str) -> str:
    """A test's name, for people.

    >>> words("test_every_equation_holds")
    'every equation holds'
    """
    return test.removeprefix("test_").replace("_", " ")


def named(outcome: Outcome) -> str:
    """Test and family."""
    return words(outcome.test) + (f" ({outcome.family})" if outcome.family else "")


def sign(outcome: Outcome) -> str:
    """A cell of the table."""
    return {"passed": "✓", "failed": "✗", "skipped": "–", "gap": f"gap ({outcome.kind})"}[outcome.outcome]


def show(found: Check) -> None:
    """Markdown, for people."""
    from llmtrace.cli.output import line

    for text in page(found):
        line(text)


def page(found: Check) -> Iterator[str]:
    """The table, what failed and why, the gaps with their reasons, why something was left out, and what it was found on."""
    yield from _table(found)
    for outcome, title in (("failed", "Failed:"), ("gap", "Gaps:"), ("skipped", "Left out:")):
        reasons: dict[str, list[str]] = {}
        for each in found.outcomes:
            if each.outcome == outcome:
                reasons.setdefault(f"{each.kind}: {each.message}" if each.kind else each.message, []).append(
                    named(each)
                )
        if reasons:
            yield from ("", title, "")
            yield from (f"- {_several(tests)}: {reason}" for reason, tests in reasons.items())
    yield ""
    if not found.counts["passed"]:
        yield f"Not one test passed, so nothing is known of {found.entry.name}."
    verdict = "passes" if found.passes else "does not pass"
    yield f"{found.entry.name} {verdict} {'the conformance kit' if found.complete else 'this part of the conformance kit'}: {_counted(found)}."
    versions = [f"{name} {version}" for name, version in found.versions.items()]
    yield ", ".join([*versions, f"Python {found.python}", found.system]) + "."


def _table(found: Check) -> Iterator[str]:
    """A row a test, a column a family; as wide as its widest cell, so that it can be read as it is."""
    columns = [*found.families, *([ONCE] if any(not each.family for each in found.outcomes) else [])]
    cells = {(each.test, each.family or ONCE): sign(each) for each in found.outcomes}
    rows = [
        [words(test), *(cells.get((test, column), "") for column in columns)]
        for test in dict.fromkeys(each.test for each in found.outcomes)
    ]
    head = ["test", *columns]
    widths = [max(3, *(len(row[place]) for row in [head, *rows])) for place in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"


def _several(tests: list[str]) -> str:
    """Tests of which the same is to be said."""
    return ", ".join(tests[:SHOWN]) + (f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else "")


def _counted(found: Check) -> str:
    counts = found.counts
    more = [f"{counts['gap']} gaps"] * bool(counts["gap"]) + [f"{counts['skipped']} left out"] * bool(counts["skipped"])
    return ", ".join([f"{counts['passed']} passed", f"{counts['failed']} failed", *more, f"{found.seconds:.0f} s"])
