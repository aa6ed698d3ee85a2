"""Calls into a backend: what it raises untyped names it; what the observer raised is passed on unchanged."""

from contextlib import suppress

import numpy as np
import pytest

from llmtrace.errors import BackendError, ModelOpenError, SchemaViolationError
from llmtrace.model import Model
from tests.specs import SPECS, FakeSession, WeighedSession, equations

BUILT = equations(SPECS["sequential"])
PROMPT = [1, 2, 3]


class OwnError(Exception):
    """What an observer raises."""


class Objecting:
    """Raises at the second signal; must not be called again."""

    def __init__(self):
        self.error = OwnError("enough")
        self.calls = 0

    def signal(self, site, array):
        self.calls += 1
        assert self.calls < 3, "called after it had raised"
        if self.calls == 2:
            raise self.error

    def layer_done(self, layer):
        pass


def test_a_run_that_fails_names_the_backend_and_keeps_the_cause():
    class Failing(FakeSession):
        def run(self, request, observer):
            raise RuntimeError("native failure 0x3")

    with pytest.raises(BackendError, match="backend fake failed in run: RuntimeError: native failure 0x3") as caught:
        Model(Failing(BUILT)).trace(PROMPT)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_run_of_many_that_fails_names_the_call():
    class Failing(FakeSession):
        def run_many(self, requests, observers):
            raise KeyError("slot")

    with pytest.raises(BackendError, match="failed in run_many: KeyError: 'slot'"):
        Model(Failing(BUILT)).trace_many([PROMPT, PROMPT])


@pytest.mark.parametrize("wrong", [lambda array: array.tolist(), lambda array: None])
def test_what_is_no_array_names_the_backend_and_the_site(wrong):
    class Listing(FakeSession):
        def hand_over(self, site, array, observer):
            observer.signal(site, wrong(array))

    with pytest.raises(SchemaViolationError, match=r"backend fake handed over embed as (list|NoneType) instead of"):
        Model(Listing(BUILT)).trace(PROMPT)


class Passing(FakeSession):
    """As the contract says."""


class Wrapping(FakeSession):
    """Turns what the observer raised into an error of its own."""

    def run(self, request, observer):
        try:
            super().run(request, observer)
        except OwnError as error:
            raise RuntimeError("callback failed") from error


class Swallowing(FakeSession):
    """Goes on after the observer raised, as a runtime does whose callbacks cannot fail."""

    def hand_over(self, site, array, observer):
        with suppress(OwnError):
            observer.signal(site, array)


@pytest.mark.parametrize("kind", [Passing, Wrapping, Swallowing])
def test_an_observer_s_own_error_is_passed_on_unchanged_and_it_is_not_called_again(kind):
    observer = Objecting()
    with pytest.raises(OwnError) as caught:
        Model(kind(BUILT)).stream(PROMPT, observer)
    assert caught.value is observer.error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert observer.calls == 2


def test_what_is_interrupted_is_interrupted():
    class Interrupted(FakeSession):
        def run(self, request, observer):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(Interrupted(BUILT)).trace(PROMPT)


def test_a_sound_run_is_as_without_the_wrapper():
    trace = Model(FakeSession(BUILT)).trace(PROMPT, capture="logits")
    assert trace["logits"].array.shape == (3, 11)
    assert np.isfinite(trace["logits"].array).all()


class Spoilt(dict):
    """Weights whose file can no longer be read."""

    error: BaseException

    def __getitem__(self, name):
        super().__getitem__(name)
        raise self.error


def spoilt(error):
    """A session of weights with an error in the way of them."""

    class Session(WeighedSession):
        weights = Spoilt(BUILT.weights)

    Session.weights.error = error
    return Session(BUILT)


@pytest.mark.parametrize("error", [OSError("mmap length is greater than file size"), KeyError("tensor"), SystemExit(1)])
def test_a_weight_that_cannot_be_read_names_itself_and_the_backend(error):
    model = Model(spoilt(error))
    said = rf"backend fake could not read the weight embed\.W_E: {type(error).__name__}: .*open the model again"
    for read in (
        lambda: model.weights["embed.W_E"],
        lambda: model.equations.weights["embed.W_E"],
        lambda: model.verify(PROMPT),
    ):
        with pytest.raises(BackendError, match=said) as caught:
            read()
        assert caught.value.__cause__ is error


def test_a_typed_error_of_a_weight_is_passed_on_and_a_name_that_is_none_is_a_key_error():
    session = WeighedSession(BUILT)
    model = Model(session)
    assert set(model.weights) == set(session.weights) and len(model.weights) == len(session.weights)
    assert model.weights["embed.W_E"] is session.weights["embed.W_E"] and "embed.W_X" not in model.weights
    with pytest.raises(KeyError):
        model.weights["embed.W_X"]
    error = ModelOpenError("cut off")
    with pytest.raises(ModelOpenError) as caught:
        Model(spoilt(error)).weights["embed.W_E"]
    assert caught.value is error
