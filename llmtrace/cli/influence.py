"""`llmtrace influence`: how strongly a prediction depends on each source token, by a named method."""

from __future__ import annotations

import click

from llmtrace.cli.options import (
    Asked,
    Command,
    Opening,
    Out,
    asked_options,
    opening_options,
    out_options,
    target_options,
)
from llmtrace.cli.parameters import complete_method, complete_viewer


@click.command(cls=Command)
@opening_options()
@asked_options()
@click.option(
    "--method",
    metavar="NAME",
    default="alti",
    show_default=True,
    shell_complete=complete_method,
    help="By which method.",
)
@target_options()
@click.option(
    "--foil",
    metavar="TOKEN",
    help='A token whose logit is subtracted from the target\'s (" London"), by methods that aim.',
)
@click.option("--foil-id", type=int, metavar="ID", help="The same, as a token id.")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a page: the method, what it rests on, and the lens.",
)
@click.option(
    "--save",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The same by another viewer, chosen by --viewer or suffix.",
)
@click.option("--viewer", metavar="NAME", shell_complete=complete_viewer, help="Which viewer writes --save FILE.")
@out_options()
def influence(
    opening: Opening,
    asked: Asked,
    method: str,
    position: int,
    target: str | None,
    target_id: int | None,
    foil: str | None,
    foil_id: int | None,
    html: str | None,
    save: str | None,
    viewer: str | None,
    out: Out,
) -> None:
    """Say which tokens of PROMPT a prediction of MODEL depends on.

    `llmtrace backends` lists the methods. What a score means, and what the method holds fixed, is printed with it.
    """
    from llmtrace.cli.asking import read_prompt, read_token, written_out
    from llmtrace.cli.destination import check_destination
    from llmtrace.cli.opening import open_model
    from llmtrace.cli.output import answer, say
    from llmtrace.cli.picture import gather, show, write
    from llmtrace.influence.fitness import check_foil
    from llmtrace.plugins import plugins

    prompt = read_prompt(asked)
    row = plugins().method(method)
    if foil is not None or foil_id is not None:
        check_foil([row])
    pages = _pages(html, save, viewer)
    for file in pages:
        check_destination(file, opening.model, asked.prompt_file)
    with open_model(opening, out) as model:
        aim, other = read_token(model, "target", target, target_id), read_token(model, "foil", foil, foil_id)
        found = gather(
            model, written_out(model, prompt, asked, out), method, position, aim, other, wide=bool(pages), out=out
        )
    for file, name in pages.items():
        write(found, file, name)
        say(out, f"wrote {file}")
    for warning in found.main.warnings:
        say(out, f"warning: {warning}")
    answer(out, found.main.to_json, lambda: show(found))


def _pages(html: str | None, save: str | None, viewer: str | None) -> dict[str, str]:
    """File to viewer, of what is to be written. Raises a usage error, `UnknownMethodError` for a viewer that there is not."""
    from llmtrace.plugins import plugins

    pages = {} if html is None else {html: "html"}
    if save is None:
        if viewer is not None:
            raise click.UsageError("--viewer says how --save FILE is written, and there is no --save.")
        return pages
    if viewer is None:
        viewer = plugins().viewer_of(save)
        if viewer is None:
            suffixes = dict.fromkeys(each.suffix for each in plugins().viewers.values())
            raise click.UsageError(
                f"No viewer writes {save!r}: end it in {', '.join(suffixes)}, or name one with --viewer."
            )
    plugins().viewer(viewer)
    return pages | {save: viewer}
