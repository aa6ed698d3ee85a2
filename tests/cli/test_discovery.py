"""However a stranger's plugin is broken, `llmtrace backends` says which, whose and what to do, and all others work."""

from __future__ import annotations

import json

import pytest

import llmtrace as core
from tests.strangers import BACKEND, install, llmtrace

ILL = BACKEND.format(name="ill")
UPGRADE = "upgrade llmtrace-ill or uninstall it, and tell its author"
CASES = {
    "raises": ("raise ImportError('libtoy.so: cannot open')", "", "ImportError: libtoy.so: cannot open", UPGRADE),
    "lacks a module": ("import no_such_module", "", "No module named 'no_such_module'", "install no_such_module, which it imports, or uninstall llmtrace-ill"),
    "exits": ("import sys; sys.exit(2)", "", "SystemExit: 2", UPGRADE),
    "raises what is no Exception": ("class Own(BaseException): pass\nraise Own('out')", "", "Own: out", UPGRADE),
    "does not parse": ("def f(:", "", "SyntaxError", UPGRADE),
    "a hook that raises": (ILL + "@hookimpl\ndef llmtrace_viewers():\n    1 / 0\n", "llmtrace_viewers", "ZeroDivisionError", UPGRADE),
    "a hook that is none": (ILL + "@hookimpl\ndef llmtrace_bakends():\n    return []\n", "", "llmtrace_bakends", UPGRADE),
    "a newer schema": (ILL + f"Stranger.schema_version = {core.SCHEMA_VERSION + 1}\n", "llmtrace_backends", "signal schema", "upgrade llmtrace-core"),
    "an older schema": (ILL + f"Stranger.schema_version = {core.SCHEMA_VERSION - 1}\n", "llmtrace_backends", "signal schema", "upgrade llmtrace-ill"),
    "a name that is taken": (ILL + "Stranger.name = 'reference'\n", "llmtrace_backends", "is already taken by", "uninstall one of them"),
    "a class that lacks a method": (ILL + "@hookimpl\ndef llmtrace_backends():\n    return [type('Bare', (), {'name': 'ill'})]\n", "llmtrace_backends", "'ill'", UPGRADE),
    "a probe that hangs": (ILL + "Stranger.probe = staticmethod(lambda source, path: time.sleep(600))\n", "llmtrace_backends", "its probe gave no answer within 2 s", UPGRADE),
    "a probe that exits": (ILL + "Stranger.probe = staticmethod(lambda source, path: sys.exit(3))\n", "llmtrace_backends", "its probe failed: SystemExit: 3", UPGRADE),
    "a probe that says something else": (ILL + "Stranger.probe = staticmethod(lambda source, path: 'yes')\n", "llmtrace_backends", "its probe answered 'yes'", UPGRADE),
}  # fmt: skip
"""Source, hook, and words of the reason and of the fix."""


@pytest.mark.parametrize("case", CASES)
def test_a_broken_plugin_is_listed_with_its_distribution_and_a_fix_and_the_rest_works(tmp_path, validate, case):
    source, hook, reason, fix = CASES[case]
    folder = install(tmp_path / "site", "llmtrace-ill", source)
    install(tmp_path / "site", "well", BACKEND.format(name="well"))
    done = llmtrace("backends", "--json", path=(folder,), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    validate("backends", document)
    (broken,) = [each for each in document["broken"] if each["distribution"] == "llmtrace-ill"]
    assert (broken["version"], broken["hook"]) == ("1.0", hook)
    assert reason in broken["reason"]
    assert broken["fix"].startswith(fix)
    assert len(document["broken"]) == 1
    status = {row["name"]: row["status"] for row in document["backends"]}
    assert (status["reference"], status["well"]) == ("ok", "ok")


@pytest.mark.parametrize("case", ["exits", "raises what is no Exception", "a probe that hangs", "a newer schema"])
def test_a_model_is_opened_all_the_same(tmp_path, case):
    folder = install(tmp_path / "site", "llmtrace-ill", CASES[case][0])
    done = llmtrace("lens", "builtin:induction", "a b a", "--json", path=(folder,), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert ("warning: ill is broken (its probe gave no answer within 2 s)" in done.stderr) == (
        case == "a probe that hangs"
    )


def test_what_to_do_is_told_once(tmp_path):
    folder = install(tmp_path / "site", "llmtrace-ill", CASES["a name that is taken"][0])
    done = llmtrace("backends", path=(folder,), cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("broken plugin:")]
    assert line.endswith("which is used: uninstall one of them")
    assert line.count("uninstall") == 1


def test_damaged_metadata_spoils_nothing(tmp_path):
    folder = install(tmp_path / "site", "llmtrace-ill", "raise RuntimeError('ill')")
    (folder / "llmtrace_ill-1.0.dist-info" / "METADATA").unlink()
    done = llmtrace("backends", "--json", path=(folder,), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "reference" in {row["name"] for row in json.loads(done.stdout)["backends"]}


def test_two_that_open_a_model_alike_are_told_in_a_note(tmp_path):
    folder = install(
        tmp_path / "site", "alike", BACKEND.format(name="alike") + "Stranger.capabilities = ('weights',)\n"
    )
    done = llmtrace("lens", "builtin:induction", "a b a", path=(folder,), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "backend reference (" in done.stderr
    assert (
        "note: alike opens this too, as near (native) as reference, which was taken: --backend alike takes the other"
        in done.stderr
    )
