"""Verdicts for people: the headline, where a fault entered, the worst site of each kind, and what could not be judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llmtrace.schema.steps import any_layer
from llmtrace.verifying import ABSENT, not_judged, reason_of
from llmtrace.view.signals import pattern
from llmtrace.words import counted

if TYPE_CHECKING:
    from llmtrace.schema.verify import LocalError
    from llmtrace.verifying import Verdicts

KINDS = 6
"""Kinds of sites that are named beside a reason that they share."""


def show(verdicts: Verdicts, every: bool) -> None:
    """The verdict, where it was violated first, and the worst site of each kind; for people."""
    from llmtrace.cli.output import line, table

    line(headline(verdicts))
    for note in verdicts.notes:
        if note not in verdicts.model.notes:  # those were said when it was opened
            line(f"note: {note}")
    line()
    head = ("site", "status", "relative error", "worst token", "tolerance", "reason")
    if every:
        table(head, [(each.site, *_cells(each), reason_of(each)) for each in verdicts.sites], right=head[2:5])
        return
    kinds = _byany_layer(verdicts.judged)
    rows = [
        (kind, *_cells(worst := _worst(group)), worst.site if worst.site != kind else "")
        for kind, group in kinds.items()
    ]
    table(("kind of site", "status", "relative error", "worst token", "tolerance", "worst at"), rows, right=head[2:5])
    _show_rest(verdicts)


def headline(verdicts: Verdicts) -> str:
    """The verdict in one line, with how much it does not speak about."""
    bad, judged, left = verdicts.violated, len(verdicts.judged), verdicts.left_out
    first = f": {left[0]}" if len(left) == 1 else f", from {left[0]} on" if left else ""
    unjudged = f"; {not_judged(len(left))}{first}" if left else ""
    if bad:
        return f"violated: {len(bad)} of {counted(judged, 'judged site')}, first {_sentence(bad[0])}{unjudged}"
    rest = len(verdicts.sites) - judged - len(left)
    others = f" ({counted(rest, 'other site')} {'was' if rest == 1 else 'were'} not judged, see below)" if rest else ""
    agree = (
        "the only judged site agrees with its equation"
        if judged == 1
        else f"all {judged:,} judged sites agree with their equations"
    )
    return f"holds: {agree} within rounding{unjudged}{others}"


def _show_rest(verdicts: Verdicts) -> None:
    from llmtrace.cli.output import line

    of_kind = Counter(any_layer(each.site) for each in verdicts.sites)
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    for each in verdicts.sites:
        if each.status in ("unchecked", "unavailable"):
            kinds = reasons.setdefault((each.status, _reason(each)), {})
            kinds.setdefault(any_layer(each.site), []).append(each.site)
    if reasons:
        line()
    for (status, reason), kinds in reasons.items():
        if reason == ABSENT:
            line(f"{ABSENT}: {counted(sum(map(len, kinds.values())), 'site')}")
        else:
            line(f"{status}: {_listed(kinds, of_kind)}: {reason}")


def _reason(each: LocalError) -> str:
    """Why a site was not judged, without its name and layer: what several kinds of sites may share."""
    kind, reason = any_layer(each.site), any_layer(each.reason)
    own = rf"(^|\. ){re.escape(kind)} (?=is |cannot )"
    said = reason.removeprefix(f"{kind} cannot be checked: ")
    return re.sub(own, lambda found: f"{found[1]}It " if found[1] else "it ", said)


def _listed(kinds: Mapping[str, list[str]], of_kind: Mapping[str, int]) -> str:
    """Kinds of sites that have one reason, each with its number, and its layers where they are not all; of many kinds the first."""
    named = [
        (kind if len(sites) == of_kind[kind] else pattern(sites)) + (f" ({len(sites)})" if len(sites) > 1 else "")
        for kind, sites in kinds.items()
    ]
    rest = sum(map(len, list(kinds.values())[KINDS:]))
    return ", ".join(named[:KINDS]) + (f" and {counted(rest, 'more site')}" if rest else "")


def _sentence(each: LocalError) -> str:
    reason = reason_of(each)
    numbers = f"relative error {each.relative_error:.1e}, worst token {each.worst_token_error:.1e}, tolerance {each.tolerance:.1e}"
    return f"{each.site}: " + (f"{reason}; " if reason else "") + numbers


def _cells(each: LocalError) -> tuple[str, str, str, str]:
    from llmtrace.cli.output import scientific

    if each.status not in ("holds", "violated"):
        return each.status, "", "", ""
    return each.status, scientific(each.relative_error), scientific(each.worst_token_error), scientific(each.tolerance)


def _byany_layer(sites: Iterable[LocalError]) -> dict[str, list[LocalError]]:
    kinds: dict[str, list[LocalError]] = {}
    for each in sites:
        kinds.setdefault(any_layer(each.site), []).append(each)
    return kinds


def _worst(group: list[LocalError]) -> LocalError:
    return max(group, key=lambda each: (each.status == "violated", each.relative_error))
