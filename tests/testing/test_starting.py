"""The skeleton of a plugin: whole or not at all, sound code, and a kit run that says what to write next."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmtrace as core
from llmtrace.errors import OptionError
from llmtrace.testing.starting import new_backend
from tests.laws.test_backends_use_what_is_promised import PROMISED, taken
from tests.strangers import environment, llmtrace, registered

NAMES = ["toy", "a", "a-rather-long_name"]


@pytest.fixture
def toy(tmp_path):
    """The skeleton of `toy`, registered as pip would."""
    written = new_backend("toy", tmp_path)
    registered(tmp_path / "site", "llmtrace-toy", "toy = llmtrace_toy.plugin")
    return written.directory, tmp_path / "site"


def tool(*line, cwd):
    done = subprocess.run(
        [sys.executable, "-m", *line], cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_skeleton_passes_its_own_linter_formatter_and_type_checker(tmp_path, name):
    written = new_backend(name, tmp_path)
    tool("ruff", "check", "--no-cache", ".", cwd=written.directory)
    tool("ruff", "format", "--no-cache", "--check", ".", cwd=written.directory)
    tool(
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path.parent / "mypy"),
        written.package,
        "tests",
        cwd=written.directory,
    )


def test_it_imports_only_what_the_guide_promises(tmp_path):
    for path in new_backend("toy", tmp_path).directory.rglob("*.py"):
        for module, names in taken(ast.parse(path.read_text("utf-8"))):
            assert module in PROMISED, f"{path.name}: {module}"
            assert not PROMISED[module] or set(names) <= PROMISED[module], f"{path.name}: {module}: {names}"


def test_it_says_what_was_written_and_every_word_in_it_is_filled_in(tmp_path):
    written = new_backend("my-rt", tmp_path)
    found = {str(path.relative_to(written.directory)) for path in written.directory.rglob("*") if path.is_file()}
    assert found == set(written.files)
    expected = {
        f"llmtrace_my_rt/{name}.py"
        for name in ("plugin", "options", "open", "session", "sites", "weights", "conformance")
    }
    assert expected | {"pyproject.toml", "README.md", "tests/test_conformance.py"} <= found
    text = "".join((written.directory / name).read_text(encoding="utf-8") for name in found)
    assert "@" not in text.replace("@hookimpl", "").replace("@staticmethod", "").replace("@frozen", "")
    assert "class MyRtBackend" in text
    assert [path.name for path in tmp_path.iterdir()] == ["llmtrace-my-rt"]


def test_its_project_names_the_entry_point_and_the_core_that_wrote_it(tmp_path):
    import tomllib

    project = tomllib.loads((new_backend("my-rt", tmp_path).directory / "pyproject.toml").read_text())["project"]
    assert project["name"] == "llmtrace-my-rt"
    assert project["entry-points"]["llmtrace"] == {"my-rt": "llmtrace_my_rt.plugin"}
    major, minor, _ = core.__version__.split(".")
    assert project["dependencies"] == [f"llmtrace-core>={major}.{minor},<{major}.{int(minor) + 1}"]


def test_it_is_listed_as_a_working_backend(toy, tmp_path):
    done = llmtrace("backends", "--json", path=toy, cwd=tmp_path)
    document = json.loads(done.stdout)
    (row,) = [row for row in document["backends"] if row["name"] == "toy"]
    assert (row["status"], row["distribution"], row["capabilities"]) == ("ok", "llmtrace-toy", ["weights"])
    assert document["broken"] == []


def test_its_tests_fail_with_what_to_write_next_and_none_is_an_error(toy, tmp_path):
    line = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-k", "llama or not ["]
    done = subprocess.run(line, cwd=toy[0], env=environment(*toy), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed, " in done.stdout
    assert " error" not in done.stdout.splitlines()[-1]
    reasons = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "/")) and ": " in line]
    assert reasons
    unwritten = "open is not written yet: load the model with your runtime, in `load` of llmtrace_toy/open.py"
    assert [line for line in reasons if unwritten not in line and "probe does not claim" not in line] == []


def test_what_needs_no_model_passes_at_once(toy, tmp_path):
    done = llmtrace("check-backend", "toy", "--json", path=toy, cwd=tmp_path)
    assert done.returncode == 1
    rows = {row["test"]: row["outcomes"] for row in json.loads(done.stdout)["tests"]}
    passed = {test for test, each in rows.items() if all(one["outcome"] == "passed" for one in each)}
    assert {
        "test_the_backend_is_what_plugins_are",
        "test_options_are_documented_and_checked",
        "test_a_source_that_is_not_there",
    } <= passed
    failed = [one["message"] for each in rows.values() for one in each if one["outcome"] == "failed"]
    assert all("not written yet" in message or "probe does not claim" in message for message in failed)


def filled(directory: Path, file: str, old: str, new: str) -> None:
    path = directory / "llmtrace_toy" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text[: text.index(old)] + new if new.endswith("\n\n") else text.replace(old, new), encoding="utf-8")


def test_when_open_is_written_the_sites_are_next_and_then_the_run(toy, tmp_path):
    """And when all are, it passes: the reference backend stands in for a runtime."""
    directory, _ = toy

    def messages(*tests):
        words = [word for test in tests for word in ("--test", test)]
        done = llmtrace("check-backend", "toy", "--family", "llama", *words, "--json", path=toy, cwd=tmp_path)
        document = json.loads(done.stdout)
        return {
            each["message"] for row in document["tests"] for each in row["outcomes"] if each["outcome"] != "skipped"
        }, document

    load = "    from llmtrace.reference.open import open_reference\n    from llmtrace.reference.options import ReferenceOptions\n"
    load += "    return open_reference(source, ReferenceOptions())\n\n"
    filled(directory, "open.py", '    where = "`load`', load)
    (message,) = messages("runs repeat", "every equation")[0]
    assert "does not offer the logits" in message
    sites = """SITES: Mapping[str, str] = {
    "logits": "logits", "embed": "embed", "ln": "ln_final.out", "{L}": "blocks.{L}.resid_post",
    "{L}.qkv": "blocks.{L}.attn.q blocks.{L}.attn.k blocks.{L}.attn.v", "{L}.z": "blocks.{L}.attn.z",
}
"""
    filled(directory, "sites.py", "SITES: Mapping[str, str] = {}\n", sites)
    (message,) = messages("runs repeat", "every equation")[0]
    assert "run is not written yet" in message
    assert "`forward` of llmtrace_toy/session.py" in message
    forward = """    from llmtrace.testing.kit.running import watch
    seen = watch(model, tokens).arrays
    import numpy as np
    from llmtrace_toy.sites import sites
    return {
        name: np.concatenate([seen[site].reshape(len(tokens), -1) for site in each], axis=1) if len(each) > 1 else seen[each[0]]
        for name, each in sites(len(model.spec.blocks)).items()
    }

"""
    filled(directory, "session.py", '    where = "`forward`', forward)
    filled(
        directory,
        "session.py",
        'Precision(storage="float32", accumulation="float32")',
        'Precision("float64", "float64")',
    )
    found, document = messages("")
    assert document["counts"]["passed"] >= 15
    assert found == {""}
    assert document["verdict"] == "passes"


@pytest.mark.parametrize("name", ["", "Toy", "7up", "a b", "../x", "toy-", "a--b", "a.b", "naïve", "-x", "toy\n"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(OptionError, match="cannot be called"):
        new_backend(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "owner"), [("reference", "llmtrace-core"), ("core", "llmtrace-core")])
def test_a_name_that_is_taken_is_refused(tmp_path, name, owner):
    with pytest.raises(OptionError, match=f"'{name}' is taken by {owner}"):
        new_backend(name, tmp_path)


@pytest.mark.parametrize("there", ["file", "directory", "link"])
def test_nothing_is_written_over(tmp_path, there):
    target = tmp_path / "llmtrace-toy"
    {"file": target.touch, "directory": target.mkdir, "link": lambda: target.symlink_to("nowhere")}[there]()
    with pytest.raises(OptionError, match="is there already"):
        new_backend("toy", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["llmtrace-toy"]


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    real = Path.write_text

    def full(self, *args, **more):
        if self.name == "session.py":
            raise OSError(28, "No space left on device")
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        new_backend("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OptionError, match="There is no directory"):
        new_backend("toy", tmp_path / "absent")
