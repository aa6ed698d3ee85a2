"""What the tests of the kit share: which backend, which models, what is known to be missing.

**Gap**: a test, or a family, that a backend does not pass yet, declared with its kind and a reason; the test must then fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import frozen

from llmtrace.calling import calling
from llmtrace.contract import check_contract
from llmtrace.model import Model
from llmtrace.protocol import Gap, Preset, TraceBackend
from llmtrace.settings import settings
from llmtrace.testing.failing import SourceFailed
from llmtrace.testing.model import FAMILIES, TinyModel, tiny_model
from llmtrace.words import counted

OTHER_SEED = 1
"""Of the model that stands beside another of its family."""
LISTED = 5
"""So many sites are named where more are at fault."""


@frozen
class Bench:
    """Tiny models and sessions of them, made when they are first asked for and kept while a class of tests runs."""

    kit: Kit
    directory: Path

    def tiny(self, family: str, seed: int = 0) -> TinyModel:
        """A model; always the same."""
        return tiny_model(family, self.directory / f"{family}-{seed}", seed)

    def source(self, tiny: TinyModel) -> str:
        """What the backend opens it by; converted once."""
        place = self.directory / "converted" / tiny.directory.name
        mark = place / "source"
        if not mark.exists():
            place.mkdir(parents=True, exist_ok=True)
            mark.write_text(str(self._converted(tiny, place)), encoding="utf-8")
        return mark.read_text(encoding="utf-8")

    def _converted(self, tiny: TinyModel, place: Path) -> str | Path:
        """Raises `SourceFailed`, and `NotImplementedError` as it is: so a kit says what its format cannot."""
        try:
            return self.kit.source(tiny, place)
        except NotImplementedError:
            raise
        except Exception as error:
            raise SourceFailed(
                f"the kit's own `source` failed for the family {tiny.family}, so nothing was tried: {type(error).__name__}: {error}; for a "
                "family that the format cannot say, raise NotImplementedError"
            ) from error

    def open(self, tiny: TinyModel, preset: Preset = "exact", options: Mapping[str, Any] = {}) -> Model:
        """A session of its own, held to the contract. The caller closes it."""
        return open_with(self.kit.backend, self.source(tiny), preset, options)


def open_with(
    backend: type[TraceBackend], source: str, preset: Preset = "exact", options: Mapping[str, Any] = {}
) -> Model:
    """Open as `llmtrace.open` does, without looking for plugins and without a probe."""
    with calling(backend.name, "open"):
        session = backend.open(source, settings(backend, preset, options))
    check_contract(session, backend)
    return Model(session, "named")


class Opened(Model):
    """A model that is opened when it is first looked at: in a test, so that one that does not open fails each test that needs it."""

    def __init__(self, opening: Callable[[], Model]) -> None:
        self._opening = opening

    def __getattr__(self, name: str) -> Any:
        """What only an open model has."""
        if name.startswith("__") or name in vars(self):
            raise AttributeError(name)
        if "session" not in vars(self):
            vars(self).update(vars(self._opening()))
        return object.__getattribute__(self, name)


class Kit:
    """Subclasses name a backend; the tests come from the concerns."""

    backend: ClassVar[type[TraceBackend]]
    """The class under test."""
    families: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    """Of the tiny models. More may be added, none taken away: that is what `gaps` are for."""
    gaps: ClassVar[Mapping[str, Gap]] = {}
    """What is known to be missing: by family (`gemma2`), test (`test_edits_act_once`), or both (`test_edits_act_once[gemma2]`)."""

    patience: ClassVar[float] = 20.0
    """Seconds that closing a tiny model may take."""
    text: ClassVar[str] = "the cat sat on the mat"
    """ASCII, without a blank at either end: what a tokenizer is asked to encode. One of few letters, or one whose tokens are words
    without the blanks between them, needs another."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Further settings to hold, by a name of your own: options that are laid over `exact`."""

    def source(self, tiny: TinyModel, directory: Path) -> str | Path:
        """What the backend opens the model by: its directory, unless overridden to convert it into files in `directory`. Raises
        `NotImplementedError` for a family that the format cannot say, which a gap then declares; any other exception is a failure."""
        return tiny.directory

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One run of a test for each family, where it asks for `tiny`."""
        if "tiny" in metafunc.fixturenames:
            metafunc.parametrize("tiny", self.families, indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        """Models and sessions of this class of tests."""
        return Bench(cls(), tmp_path_factory.mktemp("kit"))

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, request: pytest.FixtureRequest, bench: Bench) -> TinyModel:
        """The model of one family."""
        return bench.tiny(request.param)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tiny: TinyModel, bench: Bench) -> Iterator[Model]:
        """It, open in the backend under test; shared by tests, which leave it as it was."""
        model = Opened(lambda: bench.open(tiny))
        yield model
        if "session" in vars(model):
            model.close()

    @pytest.fixture
    def one(self, bench: Bench) -> TinyModel:
        """A single model, for what does not depend on the family: the first that has no gap."""
        family = next((family for family in self.families if family not in self.gaps), None)
        assert family is not None, "every family is a gap, so there is no model to look at"
        return bench.tiny(family)

    @pytest.fixture
    def opened(self, bench: Bench) -> Iterator[Callable[..., Model]]:
        """Opens a model in a session of its own, closed at the end of the test."""
        with ExitStack() as stack:

            def open(tiny: TinyModel, preset: Preset = "exact", options: Mapping[str, Any] = {}) -> Model:
                return stack.enter_context(bench.open(tiny, preset, options))

            yield open


def claims(backend: type[TraceBackend], ability: str) -> None:
    """Leave a test out where the backend does not claim the ability that it is about."""
    if ability not in backend.capabilities:
        pytest.skip(f"{backend.name} does not claim the capability {ability!r}")


def beyond(away: Mapping[str, float], limit: float, order: Iterable[str]) -> str:
    """The sites that are further away than the limit, in dataflow order, so that the first is where it began; empty where none is.

    >>> beyond({"c": 0.5, "b": 2e-8, "a": 0.25}, 1e-6, "abc")
    'a: 2.5e-01, c: 5.0e-01 (rounding explains 1.0e-06)'
    """
    found = [f"{site}: {away[site]:.1e}" for site in order if site in away and not away[site] <= limit]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{', '.join(found[:LISTED])}{more} (rounding explains {limit:.1e})" if found else ""


def prompt_of(tokens: int) -> str:
    """In words.

    >>> prompt_of(1), prompt_of(12)
    ('a prompt of 1 token', 'a prompt of 12 tokens')
    """
    return f"a prompt of {counted(tokens, 'token')}"
