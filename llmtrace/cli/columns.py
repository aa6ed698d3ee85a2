"""The demo's columns: what each backend makes of the embedded model, the reference first. **Apart**: how far a backend's captured
signals are from the reference's, at the site where they are farthest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from llmtrace.cli.known import METHODS, Known, measured
from llmtrace.cli.output import say
from llmtrace.data import DEMO, embedded
from llmtrace.errors import LLMTraceError

if TYPE_CHECKING:
    from llmtrace.cli.options import Out
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.model import Model
    from llmtrace.trace import Trace
    from llmtrace.verifying import Verdicts

REFERENCE = "reference"


@frozen(eq=False)
class Column:
    """One backend's run over the demo's prompt."""

    backend: str
    influences: list[Influence]
    lens: Lens
    verdicts: Verdicts
    apart: float | None
    """Largest relative error to the reference; None for the reference itself."""
    apart_at: str

    def measured(self, answers: list[Known]) -> list[float | None]:
        """What it gives for each known answer."""
        return measured(answers, DEMO, self.influences, self.lens)


def columns(only: tuple[str, ...], out: Out) -> list[Column]:
    """Run the reference, then the backends named in `only` (none: all that open the embedded model).

    A backend that was not named and fails is left out, and said. Raises what `llmtrace.open` raises for one that was named.
    """
    import llmtrace

    with llmtrace.open(embedded("induction"), backend=REFERENCE, preset="exact") as model:
        base = model.trace(DEMO.prompt)
        found = [_column(model, None, base)]
    for name in only or _others():
        if name == REFERENCE:
            continue
        try:
            say(out, f"running {name} …")
            with llmtrace.open(embedded("induction"), backend=name, preset="exact") as model:
                found.append(_column(model, model.trace(DEMO.prompt), base))
        except LLMTraceError as error:
            if only:
                raise
            say(out, f"note: {name} is left out: {error}")
    return found


def _others() -> list[str]:
    """Working backends that say they open the embedded model."""
    from llmtrace.plugins import plugins

    path = embedded("induction")
    entries = [entry for entry in plugins().backends.values() if entry.status == "ok" and entry.backend is not None]
    return sorted(
        entry.name
        for entry in entries
        if entry.backend is not None and entry.backend.probe(str(path), path) is not None
    )


def _column(model: Model, trace: Trace | None, base: Trace) -> Column:
    from llmtrace.influence import picture
    from llmtrace.verifying import verify_model

    influences, lens = picture(model, DEMO.prompt, METHODS, target=DEMO.answer)
    apart, at = (None, "") if trace is None else _apart(trace, base)
    return Column(model.info.backend, influences, lens, verify_model(model, DEMO.prompt), apart, at)


def _apart(trace: Trace, base: Trace) -> tuple[float, str]:
    from llmtrace.schema.verify import distance, token_axis

    steps = base.equations.steps
    shared = [
        site for site, signal in trace.signals.items() if signal.provenance.kind != "derived" and site in base.signals
    ]
    errors = {site: distance(trace[site].array, base[site].array, token_axis(steps[site]))[0] for site in shared}
    site = max(errors, key=errors.__getitem__)
    return errors[site], site
