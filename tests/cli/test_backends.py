"""`llmtrace backends` lists what is installed, the broken with the reason."""

from __future__ import annotations

import pytest
from attrs import evolve

import llmtrace
from llmtrace.plugins import BackendEntry, Plugins, plugins
from llmtrace.protocol import SupportsMany, SupportsReplay, SupportsWeights


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
    protocols = {"weights": SupportsWeights, "replay": SupportsReplay, "many": SupportsMany}
    with llmtrace.open(checkpoint, backend=name) as model:
        assert claimed == [word for word, protocol in protocols.items() if isinstance(model.session, protocol)]


class Impossible:
    name = "impossible"
    runtime = "None"
    distributions = ()
    capabilities = ()
    options = None

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
