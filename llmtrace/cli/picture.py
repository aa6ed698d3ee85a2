"""The picture of an influence: what is gathered for its page, and how it looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from llmtrace.cli.output import line, say

if TYPE_CHECKING:
    from llmtrace.cli.options import Out
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.model import Model, Prompt

BESIDE = ("alti", "dla", "attention")
"""Methods that every page shows beside the one asked for, which comes first; those that the model or backend does not admit are said."""


@frozen(eq=False)
class Picture:
    """What one call found."""

    influences: list[Influence]
    """The method that was asked for first."""
    lens: Lens | None

    @property
    def main(self) -> Influence:
        """By the method that was asked for."""
        return self.influences[0]


def gather(
    model: Model,
    prompt: Prompt,
    method: str,
    position: int,
    target: str | int | None,
    foil: str | int | None,
    wide: bool,
    out: Out,
) -> Picture:
    """The influence, and with `wide` what a page shows beside it, in one pass over the layers. Raises as `Model.influence` does."""
    from llmtrace.influence import influence, picture
    from llmtrace.influence.fitness import lens_refusal, refusal
    from llmtrace.plugins import plugins

    methods = [method]
    known = plugins().methods
    for name in BESIDE if wide else ():
        if name == method or name not in known:
            continue
        if (reason := refusal(model, known[name])) is None:
            methods.append(name)
        else:
            say(out, f"note: the page has no {name}: {reason}")
    if not wide:
        return Picture(influence(model, prompt, methods, position, target, foil), None)
    if (reason := lens_refusal(model)) is not None:
        say(out, f"note: the page has no lens: {reason}")
        return Picture(influence(model, prompt, methods, position, target, foil), None)
    return Picture(*picture(model, prompt, methods, position, target, foil))


def write(picture: Picture, file: str, viewer: str) -> None:
    """Write one file, by a viewer. Raises `TraceFileError` and `PluginError`, and leaves an older file as it was."""
    from llmtrace.plugins import plugins
    from llmtrace.view.files import write as write_file
    from llmtrace.view.viewer import rendered

    write_file(file, rendered(plugins().viewer(viewer), picture.influences, picture.lens))


def show(picture: Picture) -> None:
    """The heat line, the strongest sources, what no token is credited with, and what the scores mean; for people."""
    from llmtrace.cli.output import console, prompt_line, scientific, table
    from llmtrace.view.sentence import standings
    from llmtrace.view.tables import heads_table
    from llmtrace.view.text import heat_line

    found, unit = picture.main, picture.main.contract.unit
    prompt_line(found.tokens)
    heat_line(found, console())
    if said := standings(found):
        line()
        line(said)
    if found.parts:
        line()
        table(("credited to no token", unit), [(name, f"{value:.4g}") for name, value in found.parts], right=(unit,))
    if found.table:
        line()
        console().print(heads_table(found.table))
    line()
    for name, value in found.notes:
        line(f"{name}: {value if isinstance(value, str) else f'{value:.4g}'}")
    if found.completeness_gap is not None:
        line(f"completeness gap: {scientific(found.completeness_gap)} (relative)")
    line(f"explained: {found.contract.output}")
    line(f"credited: {found.contract.features}")
    line(f"held fixed: {found.contract.fixed}")
