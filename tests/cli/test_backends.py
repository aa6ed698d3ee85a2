"""`llmtrace backends` lists what is installed, the broken with the reason."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint, entry_points

import pytest
from attrs import evolve

import llmtrace
from llmtrace.loading import load
from llmtrace.plugins import BackendEntry, Plugins, plugins
from llmtrace.protocol import SupportsEdits, SupportsMany, SupportsReplacement, SupportsReplay, SupportsWeights
from tests.specs import FakeOptions


def test_its_document_lists_the_installed_backends_methods_and_viewers(cli, validate):
    document = cli("backends", "--json").document
    validate("backends", document)
    rows = {row["name"]: row for row in document["backends"]}
    assert rows["reference"]["status"] == "ok"
    assert rows["reference"]["distribution"] == "llmtrace-core"
    assert rows["reference"]["version"] == llmtrace.__version__
    assert {"name": "dtype", "type": "str", "exact": "float64", "shipped": "float64"} in rows["reference"]["options"]
    assert {"alti", "dla"} <= {row["name"] for row in document["methods"]}
    assert "html" in document["viewers"]


@pytest.mark.parametrize("name", [name for name, entry in plugins().backends.items() if entry.status == "ok"])
def test_the_capabilities_that_a_backend_claims_are_those_of_its_sessions(cli, name, checkpoint):
    backend = plugins().backend(name)
    if backend.probe(str(checkpoint), checkpoint) is None:
        pytest.skip(f"{name} does not open checkpoint directories")
    claimed = {row["name"]: row["capabilities"] for row in cli("backends", "--json").document["backends"]}[name]
    protocols = {
        "weights": SupportsWeights,
        "replay": SupportsReplay,
        "many": SupportsMany,
        "edits": SupportsEdits,
        "replacement": SupportsReplacement,
    }
    with llmtrace.open(checkpoint, backend=name) as model:
        assert claimed == [word for word, protocol in protocols.items() if isinstance(model.session, protocol)]


class Impossible:
    name = "impossible"
    runtime = "None"
    distributions = ()
    capabilities = ()
    options = None

    @staticmethod
    def probe(source, path):
        return None

    @staticmethod
    def preset(preset):
        raise RuntimeError("no presets here")


def test_a_broken_backend_is_listed_with_the_reason_and_the_others_work(cli, validate, monkeypatch):
    real = plugins()
    error = llmtrace.LLMTraceError("The plugin x could not be loaded: ImportError: no y\x1b[2J")
    broken = BackendEntry("x", "llmtrace-x", "1.0", "broken", str(error))
    strange = BackendEntry("impossible", "llmtrace-impossible", "2.0", "ok", "", Impossible)
    found = Plugins({**real.backends, "x": broken, "impossible": strange}, real.methods, real.viewers, (error,))
    monkeypatch.setattr("llmtrace.plugins.plugins", lambda: found)
    run = cli("backends", "--json")
    validate("backends", run.document)
    assert "warning: The plugin x could not be loaded" in run.err
    assert "\x1b" not in run.err
    rows = {row["name"]: row for row in run.document["backends"]}
    assert (rows["x"]["status"], rows["x"]["runtime"], rows["x"]["reason"]) == ("broken", None, str(error))
    assert rows["impossible"]["status"] == "broken"
    assert "no presets here" in rows["impossible"]["reason"]
    assert rows["reference"]["status"] == "ok"
    out = cli("backends").out
    assert "x: The plugin x could not be loaded" in out
    assert "\x1b" not in out


def test_a_probe_that_fails_is_a_warning_where_another_backend_opens_the_model(cli, monkeypatch):
    from llmtrace import plugins
    from llmtrace.reference.plugin import ReferenceBackend

    class Ill(ReferenceBackend):
        name = "ill"

        @staticmethod
        def probe(source, path):
            raise RuntimeError("no driver")

    real = plugins.plugins()
    entries = {"reference": real.backends["reference"], "ill": plugins.BackendEntry("ill", "x", "1", "ok", "", Ill)}
    for place in ("llmtrace.plugins.plugins", "llmtrace.opening.plugins"):
        monkeypatch.setattr(place, lambda: evolve(real, backends=entries))
    run = cli("lens", "builtin:induction", "c a f")
    assert run.code == 0
    assert "warning: ill is broken (its probe failed: RuntimeError: no driver)" in run.err


def test_a_backend_that_fails_in_a_run_is_named_in_one_line(cli, monkeypatch):
    def run(self, request, observer):
        raise RuntimeError("native failure 0x3")

    monkeypatch.setattr("llmtrace.reference.session.ReferenceSession.run", run)
    error = cli("lens", "builtin:induction", "c a f").error
    assert "The backend reference failed in run: RuntimeError: native failure 0x3" in error
    assert "bug in llmtrace" not in error


@pytest.mark.parametrize("hook", ["llmtrace_backends", "llmtrace_influence_methods", "llmtrace_viewers"])
def test_a_plugin_is_listed_as_broken_whichever_hook_fails_with_its_distribution_and_the_fix(
    cli, validate, monkeypatch, hook
):
    def fail():
        raise RuntimeError("ill\x1b[2J")

    module = types.ModuleType("fake_plugin_ill")
    setattr(module, hook, llmtrace.hookimpl(fail))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = EntryPoint("ill", module.__name__, "llmtrace")
    vars(entry)["dist"] = types.SimpleNamespace(name="llmtrace-ill", version="2.3")
    found = load((*entry_points(group="llmtrace"), entry))
    monkeypatch.setattr("llmtrace.plugins.plugins", lambda: found)
    run = cli("backends", "--json")
    validate("backends", run.document)
    assert run.code == 0
    assert run.document["broken"] == [
        {
            "plugin": "ill",
            "distribution": "llmtrace-ill",
            "version": "2.3",
            "hook": hook,
            "reason": run.document["errors"][0],
            "fix": "upgrade llmtrace-ill or uninstall it, and tell its author",
        }
    ]
    out = cli("backends").out
    (row,) = [line for line in out.splitlines() if line.startswith("broken plugin: ")]
    assert row.startswith(f"broken plugin: ill of llmtrace-ill 2.3: The hook {hook} of fake_plugin_ill")
    assert row.endswith("RuntimeError: ill\\x1b[2J: upgrade llmtrace-ill or uninstall it, and tell its author")


def test_the_settings_of_a_backend_are_listed_as_each_preset_has_them(cli, monkeypatch):
    class Two(Impossible):
        name = "two"
        options = FakeOptions

        @staticmethod
        def preset(preset):
            return FakeOptions(threads=1 if preset == "exact" else 4)

    found = Plugins({"two": BackendEntry("two", "llmtrace-two", "1", "ok", "", Two)}, {}, {}, ())
    monkeypatch.setattr("llmtrace.plugins.plugins", lambda: found)
    (row,) = cli("backends", "--json").document["backends"]
    assert {"name": "threads", "type": "int", "exact": 1, "shipped": 4} in row["options"]
    (line,) = [line for line in cli("backends").out.splitlines() if "threads" in line]
    assert line.split() == ["two", "threads", "int", "1", "4"]


def test_without_a_broken_plugin_none_is_listed(cli):
    assert cli("backends", "--json").document["broken"] == []
    assert "broken plugin" not in cli("backends").out
