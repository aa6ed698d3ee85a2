"""The page of influence methods, from the rows that the installed plugins bring."""

from __future__ import annotations

from llmtrace.influence.method import Method
from llmtrace.plugins import plugins
from table import NOTICE, code, table

INTRO = """# Influence methods

How strongly the prediction at one position depends on each source token: `model.influence(prompt, method=…)`, `llmtrace influence
--method …`. Each method says what it explains, what it credits, how, what it holds fixed, and the unit of a score. A method with an
identity reports by how much it misses it; one without says so, and its scores are not shares of anything.

A method that *aims* explains a token: the target, less the foil where there is one. One that does not explains the position, whatever
token is predicted there: a target changes nothing, and a foil is refused. What the model predicts, and how likely it finds the
target, is told beside the scores of either.

Two that are often laid side by side answer different questions. `dla` parts the logit of one token into what the heads moved from each
source straight into the stream that is read here, in logits, of either sign: what speaks for that token and what against. `alti` follows all
layers, and says how much of the whole vector at the position goes back to each source, whatever it predicts, in shares that are never
negative. In both the first token often takes much: heads that find nothing to attend to park their weight there, an *attention sink*,
which says little about the prediction; where it takes nearly all, a warning says so.

"Needs": `T` a trace, `W` the weights. "Cost" counts T tokens, L layers, H heads, width d.

"""


def page() -> str:
    """The whole page."""
    rows = sorted((row for row in plugins().methods.values()), key=lambda row: row.name)
    head = ("method", "what", "aims", "needs", "cost", "identity", "source")
    lines = [
        (code(m.name), m.title, "yes" if m.aims else "no", m.needs, m.cost, m.completeness or "none", m.source)
        for m in rows
    ]
    return (NOTICE + INTRO + table(head, lines) + "".join(map(_section, rows))).rstrip() + "\n"


def _section(method: Method) -> str:
    contract = method.contract
    rows = [
        ("explains", contract.output),
        ("target, foil", "enter the scores" if method.aims else "enter no score: the same for every token"),
        ("credits", contract.features),
        ("how", contract.process),
        ("held fixed", contract.fixed),
        ("unit", contract.unit),
    ]
    return f"## `{method.name}`\n\n{method.title}. {method.source}.\n\n{table(('', ''), rows)}"
