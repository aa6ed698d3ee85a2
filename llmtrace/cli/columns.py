"""The demo's columns: what each backend makes of the embedded model, the reference first. **Apart**: how far a backend's captured
signals are from the reference's, at the site where they are farthest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from llmtrace.cli.known import METHODS, Known, measured
from llmtrace.cli.output import say
from llmtrace.data import DEMO, DEMO_MODEL, embedded
from llmtrace.errors import LLMTraceError

if TYPE_CHECKING:
    from llmtrace.cli.options import Out
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.model import Model
    from llmtrace.trace import Trace
    from llmtrace.verifying import Verdicts

REFERENCE = "reference"
NEAR = 1e-4
"""How far a backend may be from the reference: float32 through two layers leaves 1e-6 and less, half precision 1e-3 and more."""


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

    @property
    def near(self) -> bool:
        """Whether it is where the reference is, but for rounding."""
        return self.apart is None or self.apart <= NEAR

    def measured(self, answers: list[Known]) -> list[float | None]:
        """What it gives for each known answer."""
        return measured(answers, DEMO, self.influences, self.lens)


def columns(only: tuple[str, ...], out: Out) -> Iterator[Column]:
    """Run the reference, then the backends named in `only` (none: all that open the embedded model), each when it is asked for.

    A backend that was not named and fails is left out, and said. Raises what `llmtrace.open` raises for one that was named, and
    before anything runs for one that there is not.
    """
    import llmtrace
    from llmtrace.plugins import plugins

    for name in only:
        plugins().backend(name)
    with llmtrace.open(DEMO_MODEL, backend=REFERENCE, preset="exact") as model:
        base = model.trace(DEMO.prompt)
        yield _column(model, None, base)
    for name in only or _others(out):
        if name == REFERENCE:
            continue
        try:
            say(out, f"running {name} …")
            with llmtrace.open(DEMO_MODEL, backend=name, preset="exact") as model:
                found = _column(model, model.trace(DEMO.prompt), base)
        except LLMTraceError as error:
            if only:
                raise
            say(out, f"note: {name} is left out: {error}")
        else:
            yield found


def _others(out: Out) -> list[str]:
    """Working backends that say they open the embedded model: by its name, in their own format, or its directory."""
    from llmtrace.opening import probed

    answers = [probed(source) for source in (DEMO_MODEL, str(embedded(DEMO_MODEL)))]
    for warning in dict.fromkeys(each for _, warnings in answers for each in warnings):
        say(out, f"warning: {warning}")
    return sorted({name for fits, _ in answers for name in fits})


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
