"""Faults: what a user can do wrong ends in a typed error that names the culprit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints
from zipfile import ZipFile

import attrs
import pytest

from llmtrace.brought import fault
from llmtrace.errors import ModelOpenError, OptionError
from llmtrace.loading import installed
from llmtrace.protocol import Fit
from llmtrace.settings import settings
from llmtrace.testing.kit.base import Bench, Kit, open_with
from llmtrace.testing.kit.imports import imported, owned
from llmtrace.testing.model import TinyModel

QUICK = 0.5
"""Seconds that a probe may take."""
ALLOWED = frozenset({"numpy", "attrs", "attr", "ml_dtypes", "safetensors", "pluggy"})
"""Packages that the core imports itself."""
TYPES = {str, int, float, bool, NoneType}
"""What an option may be."""
OTHER = {
    "a text": b"This is no model.\n" * 64,
    "bytes without a meaning": bytes(range(255, -1, -1)) * 8,
    "noughts": bytes(2048),
}
"""What a file may hold that no runtime's format begins with."""


class FaultsKit(Kit):
    """Bad input, and what is known before a model is open."""

    def test_the_backend_is_what_plugins_are(self) -> None:
        """The class has every member of `TraceBackend`, of the right kind; its distributions are installed."""
        assert not (wrong := fault("backend", self.backend)), f"{self.backend.__name__} {wrong}"
        for name in self.backend.distributions:
            assert installed(name), (
                f"{self.backend.__name__} needs the distribution {name}, which is not installed here"
            )

    def test_a_source_that_is_not_there(self, one: TinyModel, tmp_path: Path) -> None:
        """A path where nothing is: `ModelOpenError` that names it."""
        _refuses(self, tmp_path / "absent" / Path(self.name_of(one)).name)

    def test_files_that_were_cut_off(self, one: TinyModel, bench: Bench, tmp_path: Path) -> None:
        """Each file of the model empty, or cut in half: `ModelOpenError` that names the source, never a crash or a wrong model."""
        bench.open(one).close()  # a good one first: what a backend keeps of it must not stand in for a bad one
        for file in _files(Path(bench.source(one))):
            for share in (0.0, 0.5):
                copy = _copy(Path(bench.source(one)), tmp_path / f"{file.name}-{share}")
                damaged = copy if copy.is_file() else copy / file.relative_to(bench.source(one))
                content = damaged.read_bytes()
                damaged.write_bytes(content[: int(len(content) * share)])
                _refuses(self, copy)

    def test_files_that_hold_something_else(self, one: TinyModel, bench: Bench, tmp_path: Path) -> None:
        """Each file of the model replaced by other bytes: `ModelOpenError` that names the source."""
        bench.open(one).close()
        for file in _files(Path(bench.source(one))):
            copy = _copy(Path(bench.source(one)), tmp_path / file.name)
            damaged = copy if copy.is_file() else copy / file.relative_to(bench.source(one))
            damaged.write_bytes(b"\x7f not a model \xff\x00" * 64)
            _refuses(self, copy)

    def test_options_are_documented_and_checked(self) -> None:
        """Every option has a default and a type that can be given as text; an unknown one, and one of another type, is an `OptionError`
        that names it."""
        assert isinstance(self.backend.preset("exact"), self.backend.options)
        assert isinstance(self.backend.preset("shipped"), self.backend.options)
        for option in attrs.fields(self.backend.options):
            assert option.default is not attrs.NOTHING, f"the option {option.name} has no default"
        for name, hint in get_type_hints(self.backend.options).items():
            kinds = set(get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
            assert kinds <= TYPES, (
                f"the option {name} is of the type {hint}: it must be of str, int, float, bool or None"
            )
            if str not in kinds:
                with pytest.raises(OptionError, match=name):
                    settings(self.backend, "exact", {name: "neither a number nor a switch"})
        with pytest.raises(OptionError, match="no_such_option"):
            settings(self.backend, "exact", {"no_such_option": "1"})

    def test_it_claims_its_own_files_and_no_others(self, one: TinyModel, bench: Bench, tmp_path: Path) -> None:
        """`probe` knows the backend's own format, and answers None for a text, an empty directory and a name that is nothing."""
        source = bench.source(one)
        answer = self.backend.probe(source, Path(source))
        assert answer in get_args(Fit), f"probe does not claim {source}, which the backend opens: it answers {answer!r}"
        (tmp_path / "notes.txt").write_text("nothing of interest")
        (tmp_path / "empty").mkdir()
        for other in (tmp_path / "notes.txt", tmp_path / "empty"):
            assert self.backend.probe(str(other), other) is None, f"it claims to open {other.name}"
        assert self.backend.probe("./nowhere/at/all.txt", None) is None, "it claims to open a path where nothing is"

    def test_a_suffix_alone_is_no_claim(self, one: TinyModel, bench: Bench, tmp_path: Path) -> None:
        """Where a model is one file: `probe` answers None for a file of its suffix whose first bytes are not its format's; a ZIP archive of
        something else, which may begin as the format does, is not claimed, or `open` refuses it and names it."""
        suffix = Path(bench.source(one)).suffix
        if not Path(bench.source(one)).is_file():
            pytest.skip(f"{self.backend.name} opens directories, which are known by the names in them")
        for place, (what, content) in enumerate(OTHER.items()):
            other = tmp_path / f"other{place}{suffix}"
            other.write_bytes(content)
            answer = self.backend.probe(str(other), other)
            assert answer is None, f"it claims a {suffix} file that holds {what} as {answer!r}: look at its first bytes"
        archive = tmp_path / f"archive{suffix}"
        with ZipFile(archive, "w") as file:
            file.writestr("notes.txt", "nothing of interest")
        if self.backend.probe(str(archive), archive) is not None:
            _refuses(self, archive)

    def test_probing_is_quick(self, one: TinyModel, bench: Bench) -> None:
        """`probe` tells from names and first bytes: every backend is asked about every model."""
        source = bench.source(one)
        seconds = []
        for _ in range(2):  # a busy machine may be slow once
            start = time.perf_counter()
            self.backend.probe(source, Path(source))
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < QUICK, f"probe took {min(seconds):.2f} s"

    def test_the_runtime_is_not_imported_before_a_model_is_opened(self, one: TinyModel, bench: Bench) -> None:
        """The backend's module, `probe` and `preset` import none of the packages of its `distributions`."""
        known = owned(self.backend.distributions)
        own = {*ALLOWED, "llmtrace", self.backend.__module__.partition(".")[0]}
        before, after = imported(self.backend, bench.source(one))
        assert not (found := known.among(before, own)), f"{', '.join(found)} is imported before a model is opened"
        runtime = [name for name in self.backend.distributions if name not in ALLOWED]
        if runtime and not known.among(after, own):
            pytest.skip(
                f"nothing that open imports is known to be of {', '.join(runtime)}, so nothing shows whether it was imported before"
            )

    def name_of(self, tiny: TinyModel) -> str:
        """Under which name a source of this backend would be expected."""
        return tiny.directory.name


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())


def _copy(source: Path, to: Path) -> Path:
    if source.is_file():
        to.mkdir(parents=True)
        return Path(shutil.copy(source, to / source.name))
    return Path(shutil.copytree(source, to))


def _refuses(kit: Kit, source: Path) -> None:
    try:
        open_with(kit.backend, str(source)).close()
    except ModelOpenError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"{source} was refused without a ModelOpenError: {error}") from error
    else:
        raise AssertionError(f"{source} was opened")
    assert source.name in said or source.parent.name in said, f"the error does not name {source}: {said}"
