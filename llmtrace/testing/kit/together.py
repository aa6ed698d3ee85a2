"""Abilities beside editing: several prompts at once, and signals taken as given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmtrace.calling import run_many
from llmtrace.edits import add, changes
from llmtrace.model import Model
from llmtrace.protocol import Request, SupportsMany, SupportsReplay
from llmtrace.schema.verify import distance, token_axis
from llmtrace.selection import Cut, Pick, cut
from llmtrace.testing.kit.base import Kit, beyond, claims
from llmtrace.testing.kit.delivery import in_order
from llmtrace.testing.kit.editing import editable
from llmtrace.testing.kit.running import Watch, changed, explained, reference, watch, whole
from llmtrace.testing.model import TinyModel


class TogetherKit(Kit):
    """`many` and `replay`."""

    def test_prompts_together_are_prompts_alone(self, model: Model, tiny: TinyModel) -> None:
        """Prompts of unlike lengths in one call give each what it gives alone, but for the rounding of other kernels: no padding leaks."""
        claims(self.backend, "many")
        assert isinstance(model.session, SupportsMany)
        prompts = [tiny.tokens[:3], tiny.tokens, tiny.tokens[5:6], tiny.tokens[::-1]]
        picks = [Pick("**"), Pick("**", heads=[1]), Pick("**", tokens=[0]), Pick("**", tokens=[-1, 3])]
        _together(
            model, [Request(prompt, _cuts(model, prompt, pick)) for prompt, pick in zip(prompts, picks, strict=True)]
        )

    def test_edits_of_one_prompt_leave_the_others(self, model: Model, tiny: TinyModel) -> None:
        """Where prompts run together, one prompt's edits are made in it and in no other."""
        claims(self.backend, "many")
        claims(self.backend, "edits")
        site = editable(model)[0]
        prompts = [tiny.tokens[:3], tiny.tokens, tiny.tokens[::-1]]
        edits = [changes([add(site, 1.0, tokens=[1])], model.equations.steps, len(prompt)) for prompt in prompts]
        edits[1] = {}
        _together(model, [
            Request(prompt, _cuts(model, prompt, Pick("**")), {}, edit) for prompt, edit in zip(prompts, edits, strict=True)
        ])  # fmt: skip

    def test_replayed_signals_are_taken_as_given(self, model: Model, tiny: TinyModel) -> None:
        """A replayed signal takes the place of what the model would have computed: what follows is the reference's."""
        claims(self.backend, "replay")
        assert isinstance(model.session, SupportsReplay)
        assert model.session.replayable, "replay is claimed, and nothing can be replayed"
        random = np.random.default_rng(0)
        for site in model.session.replayable:
            step = model.equations.steps[site]
            if step.equation.integer or "key" in step.axes:
                continue
            given = {site: random.normal(size=step.shape(len(tiny.tokens)))}
            kept = {site: given[site].copy()}
            seen = Watch()
            model.session.run(Request(tiny.tokens, whole(model.session, len(tiny.tokens)), given), seen)
            assert not changed(kept, given), f"the session wrote to the replayed {site}, which is the caller's"
            with reference(tiny) as other:
                expected = other.trace(tiny.tokens, capture="logits", replay=given)["logits"].array
            away = distance(seen.arrays["logits"], expected)[0]
            assert away <= explained(model.session), f"with {site} given, the logits are {away:.1e} away"


def _cuts(model: Model, tokens: Sequence[int], pick: Pick) -> dict[str, Cut]:
    return {site: cut(model.equations.steps[site], pick, len(tokens)) for site in model.session.offers}


def _together(model: Model, requests: Sequence[Request]) -> None:
    """Each prompt of one call gives what it gives alone, block by block."""
    assert isinstance(model.session, SupportsMany)
    seen = [Watch() for _ in requests]
    run_many(model.session, requests, seen)
    axis = {site: token_axis(step) for site, step in model.equations.steps.items()}
    for place, (request, together) in enumerate(zip(requests, seen, strict=True)):
        edited = f", edited at {', '.join(request.edits)}" if request.edits else ""
        prompt = f"prompt {place} of {len(requests)}, {len(request.tokens)} tokens{edited}"
        in_order(together, len(model.spec.blocks))
        alone = watch(model.session, request.tokens, request.cuts, request.edits).arrays
        for site in alone:
            assert site in together.arrays, f"{prompt}: {site} did not come"
            shape = together.arrays[site].shape
            assert shape == alone[site].shape, (
                f"{prompt}: the shape of {site} is {shape} instead of {alone[site].shape}"
            )
        away = {site: distance(together.arrays[site], alone[site], axis[site])[0] for site in alone}
        others = beyond(away, explained(model.session), axis)
        assert not others, f"{prompt}: {others}"
