"""Backends that say of their signals, or of themselves, what is not so; and those that change what they look at."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from attrs import evolve

from llmtrace.protocol import Gap, Offer
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.precision import Precision
from llmtrace.trace import Provenance
from tests.meta.honest import Between, HonestSession
from tests.meta.lie import Lie


class HalfUndeclared(HonestSession):
    def hand(self, site, array):
        return array.astype(np.float16).astype(np.float32) if site.endswith("attn.z") else array


class BrainUndeclared(HonestSession):
    def hand(self, site, array):
        return array.astype(ml_dtypes.bfloat16).astype(np.float32) if site.endswith("attn.z") else array


class BrainDeclared(HonestSession):
    """Holds float32 and says bfloat16: a hundredth of an error would pass."""

    def __init__(self, *all):
        super().__init__(*all)
        modest = Offer(precision=Precision("bfloat16", "float32"), handed="float32")
        self.offers = {site: modest if offer.dtype == "float32" else offer for site, offer in self.offers.items()}


class SumsDeclaredCoarse(HonestSession):
    """Sums in float32 and says bfloat16, for the sake of the tolerance."""

    def __init__(self, *all):
        super().__init__(*all)
        modest = Offer(precision=Precision("float32", "bfloat16"))
        self.offers = {site: modest if offer.dtype == "float32" else offer for site, offer in self.offers.items()}


class OperandsDeclaredCoarse(HonestSession):
    """The same of what it multiplies."""

    def __init__(self, *all):
        super().__init__(*all)
        modest = Offer(precision=Precision("float32", "float32", operands="float16"))
        self.offers = {site: modest if site.endswith("attn.out") else offer for site, offer in self.offers.items()}


class Derives(HonestSession):
    """Computes the output of attention by the equations, and calls it captured."""

    made = "attn.out"

    def run(self, request, observer):
        self.seen = {"tokens": np.asarray(request.tokens), "positions": np.arange(len(request.tokens))}
        super().run(request, observer)

    def hand(self, site, array):
        self.seen[site] = array
        equations = Equations(self.spec, self.weights)
        if site.endswith(self.made) and all(name in self.seen for name in equations.steps[site].inputs):
            return equations.evaluate(site, equations.looking(self.seen)).astype(np.float32)
        return array


class DerivesMixed(Derives):
    made = "attn.z"


class SaysNothing(HonestSession):
    """Converted, it does not say how."""

    def __init__(self, *all):
        super().__init__(*all)
        site = "blocks.0.attn.q"
        self.offers = {**self.offers, site: evolve(self.offers[site], provenance=Provenance("converted"))}


class GivesNoReason(HonestSession):
    """Lacks a site, and says so without a word."""

    def __init__(self, *all):
        super().__init__(*all)
        site = "blocks.0.attn.scores"
        self.offers = {name: offer for name, offer in self.offers.items() if name != site}
        self.gaps = {site: Gap("ours", " ")}


def moves(logits):
    return logits * np.float32(1 + 1e-5)


class MovesWhenAllIsAsked(HonestSession):
    """Another kernel runs when much is asked for."""

    def run(self, request, observer):
        class Moved(Between):
            def signal(self, site, array):
                super().signal(site, moves(array) if site == "logits" and len(request.cuts) > 10 else array)

        super().run(request, Moved(observer))


class MovesForOneSite(HonestSession):
    """Another kernel runs when scores alone are asked for."""

    def run(self, request, observer):
        class Moved(Between):
            def signal(self, site, array):
                alone = set(request.cuts) == {"blocks.1.attn.scores", "logits"}
                super().signal(site, moves(array) if site == "logits" and alone else array)

        super().run(request, Moved(observer))


class MovesAndSaysSo(MovesWhenAllIsAsked):
    """The same, with a tolerance that allows anything."""

    def __init__(self, *all):
        super().__init__(*all)
        self.info = evolve(self.info, capture_tolerance=1.0)


class RemembersThePrompt(HonestSession):
    """A cache is not emptied: the next prompt goes on where the last one ended."""

    past = ()

    def run(self, request, observer):
        past, self.past = self.past, request.tokens[-1:]
        tail = Tail(observer, len(past), self._equations.steps)
        super().run(evolve(request, tokens=past + request.tokens), tail)


class Tail(Between):
    """Leaves out the first tokens."""

    def __init__(self, observer, first, steps):
        super().__init__(observer)
        self.first, self.steps = first, steps

    def signal(self, site, array):
        for axis, name in enumerate(self.steps[site].axes):
            if name in ("token", "query", "key"):
                array = array.take(range(self.first, array.shape[axis]), axis)
        super().signal(site, array)


ROUNDING, DERIVED = (
    "test_rounding_is_as_declared[llama]",
    "test_what_is_called_captured_was_computed_by_the_runtime[llama]",
)
COARSER = "test_no_coarser_rounding_is_declared_than_there_is[llama]"
ALL, ONE = "test_capture_does_not_change_the_logits[llama]", "test_no_single_signal_changes_the_logits[llama]"
LIES = [
    Lie("rounds to float16 and does not say so", HalfUndeclared, ROUNDING, r"blocks\.0\.attn\.z .* is a float16"),
    Lie("rounds to bfloat16 and does not say so", BrainUndeclared, ROUNDING, r"blocks\.0\.attn\.z .* is a bfloat16"),
    Lie(
        "says bfloat16 and holds float32", BrainDeclared, ROUNDING, r"blocks\.0\.\S+ holds numbers that are no bfloat16"
    ),
    Lie("says that it sums in bfloat16 and sums in float32", SumsDeclaredCoarse, COARSER, r"bfloat16"),
    Lie(
        "says that it multiplies float16 and multiplies float32",
        OperandsDeclaredCoarse,
        COARSER,
        r"operands='float16'.*blocks\.\d\.attn\.out",
    ),
    Lie("a derived attn.out is called captured", Derives, DERIVED, r"blocks\.0\.attn\.out is offered as captured"),
    Lie("a derived z is called captured", DerivesMixed, DERIVED, r"blocks\.0\.attn\.z is offered as captured"),
    Lie(
        "converted without a recipe", SaysNothing, "test_conversions_say_how[llama]", r"blocks\.0\.attn\.q is converted"
    ),
    Lie(
        "a gap has no reason",
        GivesNoReason,
        "test_what_is_missing_is_accounted_for[llama]",
        r"blocks\.0\.attn\.scores has no reason",
    ),
    Lie("capturing all moves the logits", MovesWhenAllIsAsked, ALL, r"moved by .* when everything is asked for"),
    Lie("capturing one signal moves the logits", MovesForOneSite, ONE, r"when blocks\.1\.attn\.scores is asked for"),
    Lie("any movement is within its tolerance", MovesAndSaysSo, ALL, r"capture_tolerance"),
    Lie(
        "a cache goes on into the next run",
        RemembersThePrompt,
        "test_runs_repeat[llama]",
        r"after a prompt of 12 other tokens, \S+ is not what it was",
    ),
]
