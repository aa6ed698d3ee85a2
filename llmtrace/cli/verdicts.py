"""What `verify` found: a verdict for every site of the model, those that could not be judged with the reason."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from attrs import frozen

from llmtrace.influence.document import number, token_document
from llmtrace.schema.verify import LocalError
from llmtrace.trace import ModelInfo, Token


@frozen
class Verdicts:
    """One verdict a site, in dataflow order."""

    model: ModelInfo
    tokens: tuple[Token, ...]
    sites: tuple[LocalError, ...]
    notes: tuple[str, ...]

    @property
    def violated(self) -> list[LocalError]:
        """The violated sites; the first is where a fault entered."""
        return [each for each in self.sites if each.status == "violated"]

    @property
    def judged(self) -> list[LocalError]:
        """The sites that have a verdict."""
        return [each for each in self.sites if each.status in ("holds", "violated")]

    @property
    def verdict(self) -> Literal["holds", "violated"]:
        """Of all."""
        return "violated" if self.violated else "holds"


def document(verdicts: Verdicts) -> dict[str, Any]:
    """What `--json` prints."""
    from llmtrace.schema import SCHEMA_VERSION

    first = verdicts.violated[0].site if verdicts.violated else None
    return {
        "schema_version": SCHEMA_VERSION,
        "model": verdicts.model.source,
        "backend": verdicts.model.backend,
        "preset": verdicts.model.preset,
        "notes": list(verdicts.notes),
        "tokens": [token_document(token) for token in verdicts.tokens],
        "verdict": verdicts.verdict,
        "first_violated": first,
        "sites": [_site(each) for each in verdicts.sites],
    }


def _site(each: LocalError) -> dict[str, Any]:
    judged = each.status in ("holds", "violated")
    return {
        "site": each.site,
        "status": each.status,
        "relative_error": number(each.relative_error) if judged else None,
        "worst_token_error": number(each.worst_token_error) if judged else None,
        "tolerance": each.tolerance if judged else None,
        "reason": _reason(each),
    }


def _reason(each: LocalError) -> str:
    if each.reason or math.isfinite(each.worst_token_error):
        return each.reason
    return "is not zero where its equation gives zero"


def show(verdicts: Verdicts, every: bool) -> None:
    """The verdict, where it was violated first, and the worst site of each kind; for people."""
    from llmtrace.cli.output import line, table

    bad = verdicts.violated
    if bad:
        line(f"violated: {len(bad)} of {len(verdicts.judged)} judged sites, first {_sentence(bad[0])}")
    else:
        line(f"holds: all {len(verdicts.judged)} judged sites agree with their equations within rounding")
    for note in verdicts.notes:
        if note not in verdicts.model.notes:  # those were said when it was opened
            line(f"note: {note}")
    line()
    head = ("site", "status", "relative error", "worst token", "tolerance", "reason")
    if every:
        table(head, [(each.site, *_cells(each), _reason(each)) for each in verdicts.sites], right=head[2:5])
        return
    kinds = _by_kind(verdicts.judged)
    rows = [
        (kind, *_cells(worst := _worst(group)), worst.site if worst.site != kind else "")
        for kind, group in kinds.items()
    ]
    table(("kind of site", "status", "relative error", "worst token", "tolerance", "worst at"), rows, right=head[2:5])
    _show_rest(verdicts)


def _show_rest(verdicts: Verdicts) -> None:
    from llmtrace.cli.output import line

    rest = Counter(
        (_kind(e.site), e.status, re.sub(r"blocks\.\d+\.", "blocks.L.", e.reason))
        for e in verdicts.sites
        if e.status[0] == "u"
    )
    if rest:
        line()
    for (kind, status, reason), count in rest.items():
        line(f"{status}: {kind}" + (f" ({count})" if count > 1 else "") + f": {reason}")


def _sentence(each: LocalError) -> str:
    reason = _reason(each)
    numbers = f"relative error {each.relative_error:.1e}, worst token {each.worst_token_error:.1e}, tolerance {each.tolerance:.1e}"
    return f"{each.site}: " + (f"{reason}; " if reason else "") + numbers


def _cells(each: LocalError) -> tuple[str, str, str, str]:
    from llmtrace.cli.output import scientific

    if each.status not in ("holds", "violated"):
        return each.status, "", "", ""
    return each.status, scientific(each.relative_error), scientific(each.worst_token_error), scientific(each.tolerance)


def _kind(site: str) -> str:
    return re.sub(r"^blocks\.\d+\.", "blocks.L.", site)


def _by_kind(sites: Iterable[LocalError]) -> dict[str, list[LocalError]]:
    kinds: dict[str, list[LocalError]] = {}
    for each in sites:
        kinds.setdefault(_kind(each.site), []).append(each)
    return kinds


def _worst(group: list[LocalError]) -> LocalError:
    return max(group, key=lambda each: (each.status == "violated", each.relative_error))
