"""`llmtrace lens`: what each point of the residual stream would predict (the logit lens)."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens


@click.command(cls=Command)
@opening_options()
@asked_options()
@target_options()
@click.option("--top", type=int, default=5, show_default=True, help="How many tokens to list at each point.")
@out_options()
def lens(
    opening: Opening,
    asked: Asked,
    position: int,
    target: str | None,
    target_id: int | None,
    top: int,
    out: Out,
) -> None:
    """Read MODEL's last steps, final norm and unembedding, into each point of the residual stream, at one position of PROMPT."""
    from llmtrace.cli.asking import read_prompt, read_token, written_out
    from llmtrace.cli.opening import open_model
    from llmtrace.cli.output import answer

    prompt = read_prompt(asked)
    with open_model(opening, out) as model:
        aim = read_token(model, "target", target, target_id)
        found = model.lens(written_out(model, prompt, asked, out), position=position, target=aim, top=top)
        answer(out, found.to_json, lambda: show(found))


def show(lens: Lens) -> None:
    """A row a point of the stream, for people."""
    from llmtrace.cli.output import console, line, prompt_line, scientific
    from llmtrace.view.tables import lens_table

    prompt_line(lens.tokens)
    line(f"position {lens.position}, {_aim(lens)}")
    line()
    console().print(lens_table(lens))
    line()
    line(f"the last point gives the model's own logits to {scientific(lens.gap)} (relative)")


def _aim(lens: Lens) -> str:
    """The target, and the token that the model predicts where that is another."""
    from llmtrace.view.figures import probability
    from llmtrace.view.visible import named

    target = f"target {named(lens.target.text, lens.target.id)}"
    best, share = lens.layers[-1].top[0]
    if best.id == lens.target.id:
        return f"{target}, the predicted token"
    return f"{target}; predicted: {named(best.text, best.id)} (probability {probability(share)})"
