"""Backends that compute with other weights than they are given, or keep them."""

from __future__ import annotations

from contextlib import contextmanager

from attrs import evolve

from llmtrace.overlaid import Over
from tests.meta.honest import HonestSession
from tests.meta.lie import Lie


class IgnoresWeights(HonestSession):
    """Shows the weights that it was given, and computes with its own."""

    @contextmanager
    def replaced(self, weights):
        own = self._equations
        with super().replaced(weights):
            self._equations = own
            yield


class HidesWeights(HonestSession):
    """Computes with the weights that it was given, and shows its own."""

    @contextmanager
    def replaced(self, weights):
        own = self.weights
        with super().replaced(weights):
            self.weights = own
            yield


class WritesIntoItsWeights(HonestSession):
    """Has one mapping, and writes into it."""

    @contextmanager
    def replaced(self, weights):
        own = {name: self.weights[name] for name in weights}
        self.weights.update(weights)
        try:
            yield
        finally:
            self.weights.update(own)


class ReplacesAllBlocks(HonestSession):
    """Every block gets the weight of one."""

    @contextmanager
    def replaced(self, weights):
        alike = {
            other: array
            for name, array in weights.items()
            for other in self.weights
            if other.rpartition(".attn.")[2] == name.rpartition(".attn.")[2]
        }
        with super().replaced({**alike, **weights}):
            yield


class ReplacesForCaptures(HonestSession):
    """Its own weights where nothing but the logits is asked for: that has a quick way of its own."""

    def __init__(self, *all):
        super().__init__(*all)
        self.quick = self._equations

    def run(self, request, observer):
        other = self._equations
        if set(request.cuts) == {"logits"}:
            self._equations = self.quick
        try:
            super().run(request, observer)
        finally:
            self._equations = other


class StaysReplaced(HonestSession):
    """What was replaced stays so."""

    @contextmanager
    def replaced(self, weights):
        self.weights = Over(dict(weights), self.weights)
        self._equations = evolve(self._equations, weights=self.weights)
        yield


class StaysReplacedAfterFailure(HonestSession):
    """Puts its weights back where all went well."""

    @contextmanager
    def replaced(self, weights):
        before = self.weights, self._equations
        self.weights = Over(dict(weights), self.weights)
        self._equations = evolve(self._equations, weights=self.weights)
        yield
        self.weights, self._equations = before


class ForgetsTheOuter(HonestSession):
    """Puts the file's weights back, whatever was there before."""

    def __init__(self, *all):
        super().__init__(*all)
        self.file = self.weights, self._equations

    @contextmanager
    def replaced(self, weights):
        with super().replaced(weights):
            yield
        self.weights, self._equations = self.file


class RestoresNearly(HonestSession):
    """Adds the difference, and takes it away again."""

    @contextmanager
    def replaced(self, weights):
        own = self.weights
        with super().replaced(weights):
            yield
        nearly = {name: (own[name] - array.astype("f4")) + array.astype("f4") for name, array in weights.items()}
        self.weights = Over(nearly, own)
        self._equations = evolve(self._equations, weights=self.weights)


class NothingReplaceable(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.replaceable = ()


class UnaccountedWeight(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.replaceable = tuple(name for name in self.weights if not name.endswith("attn.W_O"))


SAID, COMPUTES, BACK = (
    "test_every_weight_is_replaceable_or_there_is_a_reason[llama]",
    "test_a_replaced_weight_is_what_the_model_computes_with[llama]",
    "test_weights_are_back_afterwards[llama]",
)
LIES = [
    Lie("replaced weights are shown and not computed with", IgnoresWeights, COMPUTES, r"with another embed\.W_E: .*embed"),
    Lie("replaced weights are computed with and not shown", HidesWeights, COMPUTES, r"embed\.W_E was replaced, and is read"),
    Lie("weights are replaced where traces read their own", WritesIntoItsWeights, COMPUTES, r"looked at before, embed\.W_E is not what it was"),
    Lie("one block's weight is replaced in all", ReplacesAllBlocks, COMPUTES, r"(blocks\.\d\.attn\.\w+) replaced, blocks\.\d\.attn\.\w+ is another too"),
    Lie("weights are replaced where signals are asked for", ReplacesForCaptures, COMPUTES, r"and nothing else asked for: logits"),
    Lie("weights stay replaced", StaysReplaced, BACK, r"after .* was replaced within it, the replaced embed\.W_E is not"),
    Lie("weights stay replaced after an exception", StaysReplacedAfterFailure, BACK, r"after an exception while .* was replaced, "),
    Lie("a replacement within another ends both", ForgetsTheOuter, BACK, r"the replaced embed\.W_E is not what it was"),
    Lie("weights are back but for rounding", RestoresNearly, BACK, r"the replaced embed\.W_E|after embed\.W_E was replaced, "),
    Lie("replacement is claimed and nothing is replaceable", NothingReplaceable, SAID, r"no weight is replaceable"),
    Lie("a weight is neither replaceable nor not", UnaccountedWeight, SAID, r"blocks\.0\.attn\.W_O is neither"),
]  # fmt: skip
