"""`llmtrace new-backend`: the skeleton of a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.options import Command, Out, out_options

if TYPE_CHECKING:
    from llmtrace.testing.starting import Written


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option(
    "--into", metavar="DIR", type=click.Path(file_okay=False), default=".", show_default=True, help="Where to write it."
)
@out_options()
def new_backend(name: str, into: str, out: Out) -> None:
    """Write the skeleton of a plugin for a runtime of your own: DIR/llmtrace-NAME, to install and fill in.

    It opens nothing yet; `llmtrace check-backend NAME` says what to write next. Nothing is written over.
    """
    from llmtrace.cli.output import answer, line
    from llmtrace.testing.starting import new_backend as write

    written = write(name, into)

    def show() -> None:
        for file in written.files:
            line(str(written.directory / file))
        line()
        line(f'next: pip install -e "{written.directory}[test]"')
        line(f"then: llmtrace check-backend {name} --family llama")

    answer(out, lambda: document(written), show)


def document(written: Written) -> dict[str, Any]:
    """What `--json` prints."""
    import llmtrace

    return {
        "schema_version": llmtrace.SCHEMA_VERSION,
        "backend": written.backend,
        "package": written.package,
        "directory": str(written.directory),
        "files": list(written.files),
    }
