"""Edits: a change in flight is made, once, where it was asked for, and gone after the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llmtrace.edits import Edit, ablate, add, changes, replace, scale
from llmtrace.model import Model
from llmtrace.protocol import SupportsEdits
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import Step
from llmtrace.schema.verify import distance, token_axis
from llmtrace.testing.kit.base import Kit, beyond, claims
from llmtrace.testing.kit.neutral import Refuses, refused
from llmtrace.testing.kit.running import Watch, changed, explained, reference, watch, whole
from llmtrace.testing.model import TinyModel


class EditingKit(Kit):
    """What `SupportsEdits` promises."""

    def test_an_edited_signal_is_what_the_edit_makes_of_it(self, model: Model, tiny: TinyModel) -> None:
        """Zero, replace, add and scale change exactly what was cut of the signal, once; all before it stays bit for bit."""
        claims(self.backend, "edits")
        untouched = watch(model.session, tiny.tokens).arrays
        for edit, site in _edits(model, tiny):
            seen = _edited(model, tiny, edit)
            if site in seen.arrays:
                expected = untouched[site].copy()
                changes([edit], model.equations.steps, len(tiny.tokens))[site][0].apply(expected)
                assert _near(seen.arrays[site], expected), f"under {edit}, {site} is not what the edit makes of it"
            before = _before(model, site)
            others = changed({name: untouched[name] for name in untouched if name in before}, seen.arrays)
            assert not others, f"under {edit}, which comes after, {others}"

    def test_what_follows_an_edit_follows_from_it(self, model: Model, tiny: TinyModel) -> None:
        """All that reads an edited signal reads what was made of it: signals and logits are the reference's under the same edit."""
        claims(self.backend, "edits")
        axis = {site: token_axis(step) for site, step in model.equations.steps.items() if not step.equation.integer}
        with reference(tiny) as other:
            for edit, _ in _edits(model, tiny):
                found, expected = _edited(model, tiny, edit).arrays, _edited(other, tiny, edit).arrays
                # an edit may leave experts tied: their numbers may differ then, and nothing that follows from them
                away = {site: distance(found[site], expected[site], axis[site])[0] for site in found if site in axis}
                others = beyond(away, explained(model.session), axis)
                assert not others, f"under {edit}: {others}"
                alone = _edited(model, tiny, edit, ["logits"]).arrays["logits"]
                moved = distance(alone, expected["logits"])[0]
                assert moved <= explained(model.session), (
                    f"under {edit}, with nothing else asked for: logits: {moved:.1e} (rounding explains {explained(model.session):.1e})"
                )

    def test_edits_of_one_run_act_together_and_are_gone_after_it(self, model: Model, tiny: TinyModel) -> None:
        """Several edits act in their order, on one site and on others; the next run knows nothing of them, also where an observer
        stopped theirs."""
        claims(self.backend, "edits")
        untouched = watch(model.session, tiny.tokens).arrays
        sites = editable(model)
        site = next((site for site in sites if site in untouched), sites[0])
        edits = [
            add(site, 1.0),
            scale(site, 2.0, tokens=[1]),
            ablate(site, tokens=[2]),
            scale(sites[len(sites) // 2], 1.5),
        ]
        plan = changes(edits, model.equations.steps, len(tiny.tokens))
        seen = watch(model.session, tiny.tokens, edits=plan).arrays
        words = ", ".join(map(str, edits))
        if site in untouched:
            expected = untouched[site].copy()
            for change in plan[site]:
                change.apply(expected)
            assert _near(seen[site], expected), f"under {words}, {site} is not what they make of it"
        with reference(tiny) as other:
            logits = watch(other.session, tiny.tokens, edits=plan).arrays["logits"]
        moved = distance(seen["logits"], logits)[0]
        limit = explained(model.session)
        assert moved <= limit, (
            f"under {words}, the logits are {moved:.1e} away from the reference's (rounding explains {limit:.1e})"
        )
        others = changed(untouched, watch(model.session, tiny.tokens).arrays)
        assert not others, f"in the next run, {others}"
        refused(model, tiny, Refuses(len(untouched) // 2), plan)
        others = changed(untouched, watch(model.session, tiny.tokens).arrays)
        assert not others, f"in the run after one that failed, {others}"


def editable(model: Model) -> list[str]:
    """In dataflow order; not none, where edits are claimed."""
    there = model.session.editable if isinstance(model.session, SupportsEdits) else ()
    sites = [site for site in model.equations.steps if site in there]
    assert sites, "edits are claimed, and no site is editable"
    return sites


def _edits(model: Model, tiny: TinyModel) -> Iterator[tuple[Edit, str]]:
    """One edit of each editable site, the operations in turn, cut in turn to a head, some tokens, or not at all."""
    sites = editable(model)
    random = np.random.default_rng(0)
    for place, site in enumerate(sites):
        step = model.equations.steps[site]
        cuts: dict[str, list[int]] = {}
        if place % 3 == 0:
            cuts["tokens"] = [1, len(tiny.tokens) - 1]
        if place % 2 == 0 and (heads := _heads(step)):
            cuts["heads"] = heads
        make = (
            lambda: ablate(site, **cuts),  # noqa: B023  called at once
            lambda: replace(site, 0.5 * random.normal(size=_shape(step, tiny, cuts)), **cuts),  # noqa: B023
            lambda: add(site, 0.5 * random.normal(size=_shape(step, tiny, cuts)), **cuts),  # noqa: B023
            lambda: scale(site, 1.5, **cuts),  # noqa: B023
        )
        # nothing can be divided by what would be put in a norm's scale, and experts that tie are chosen as a runtime likes
        scaled = step.equation.name in ("scale", "router")
        yield make[3 if scaled else place % 4](), site


def _heads(step: Step) -> list[int]:
    """The last head, with those that share its keys and values."""
    if "head" in step.axes:
        return [step.sizes["head"] - 1]
    if "kv_head" in step.axes:
        return list(range(step.sizes["head"] - step.sizes["head"] // step.sizes["kv_head"], step.sizes["head"]))
    return []


def _shape(step: Step, tiny: TinyModel, cuts: Mapping[str, list[int]]) -> tuple[int, ...]:
    cut = changes([ablate(step.site, **cuts)], {step.site: step}, len(tiny.tokens))[step.site][0].cut
    return cut.shape(step.shape(len(tiny.tokens)))


def _edited(model: Model, tiny: TinyModel, edit: Edit, sites: Sequence[str] | None = None) -> Watch:
    count = len(tiny.tokens)
    cuts = whole(model.session, count, sites)
    return watch(model.session, tiny.tokens, cuts, changes([edit], model.equations.steps, count))


def _before(model: Model, site: str) -> set[str]:
    """The sites that the value of this one rests on."""
    found: set[str] = set()
    waiting = [site]
    while waiting:
        for name in model.equations.steps[waiting.pop()].inputs:
            if name in model.equations.steps and name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _near(found: Array, expected: Array) -> bool:
    """The same but for four units in the last place: an edit may be rounded once more than the oracle's."""
    unit = float(np.finfo(expected.dtype).eps) if expected.dtype.kind == "f" else 2.0**-7
    return found.shape == expected.shape and np.allclose(found, expected, rtol=4 * unit, atol=0)
