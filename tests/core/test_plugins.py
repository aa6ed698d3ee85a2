"""Plugins come by entry points; what is wrong with one is reported, and the others work."""

import sys
import types
from importlib.metadata import EntryPoint

import pytest

import llmtrace
from llmtrace.errors import BackendNotFoundError, DuplicateBackendError, PluginLoadError, UnknownMethodError
from llmtrace.plugins import load, plugins


def backend(name, *distributions):
    return type(name, (), {"name": name, "runtime": name.title(), "distributions": distributions})


def named(name):
    return type(name, (), {"name": name})


@pytest.fixture
def plugin(monkeypatch):
    """Makes an importable module of hooks, and its entry point."""

    def make(name, **hooks):
        module = types.ModuleType(f"fake_plugin_{name}")
        for hook, answer in hooks.items():
            setattr(module, hook, llmtrace.hookimpl(answer if callable(answer) else returning(answer)))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, "llmtrace")

    return make


def returning(value):
    return lambda: value


def raising(error):
    def answer():
        raise error

    return answer


def test_what_a_plugin_brings_is_found_by_name(plugin):
    found = load(
        (
            plugin(
                "a",
                llmtrace_backends=[backend("alpha")],
                llmtrace_influence_methods=[named("sum")],
                llmtrace_viewers=[named("heat")],
            ),
        )
    )
    assert found.backend("alpha").runtime == "Alpha"
    assert found.method("sum").name == "sum"
    assert found.viewer("heat").name == "heat"
    assert found.errors == ()


@pytest.mark.parametrize("target", ["no_such_module_anywhere", "llmtrace.errors:nothing"])
def test_a_plugin_that_cannot_be_imported_is_reported_and_the_rest_load(plugin, target):
    found = load((EntryPoint("broken", target, "llmtrace"), plugin("good", llmtrace_backends=[backend("alpha")])))
    assert found.backend("alpha")
    assert found.backends["broken"].status == "broken"
    (error,) = found.errors
    assert isinstance(error, PluginLoadError)
    assert target in str(error)
    with pytest.raises(BackendNotFoundError, match=f"'broken'.*is broken.*{target.split(':')[0]}"):
        found.backend("broken")


@pytest.mark.parametrize("source", ["raise RuntimeError('at import')", "import sys; sys.exit(3)", "def f(:"])
def test_a_module_that_fails_on_import_takes_no_other_with_it(plugin, tmp_path, monkeypatch, source):
    (tmp_path / "fake_plugin_failing.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    found = load(
        (EntryPoint("failing", "fake_plugin_failing", "llmtrace"), plugin("good", llmtrace_backends=[backend("alpha")]))
    )
    sys.modules.pop("fake_plugin_failing", None)
    assert found.backend("alpha")
    assert "fake_plugin_failing" in str(found.errors[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (raising(RuntimeError("hook is ill")), "RuntimeError: hook is ill"),
        (raising(SystemExit(1)), "SystemExit"),
        (5, "TypeError"),
        ([object()], "has no name"),
        ([type("Bare", (), {"name": "bare", "runtime": "Bare"})], "which distributions"),
    ],
)
def test_a_hook_that_fails_is_reported_by_plugin_and_hook(plugin, answer, words):
    found = load(
        (
            plugin("ill", llmtrace_backends=answer, llmtrace_viewers=[named("heat")]),
            plugin("well", llmtrace_backends=[backend("alpha")]),
        )
    )
    (error,) = found.errors
    assert isinstance(error, PluginLoadError)
    for word in ("llmtrace_backends", "fake_plugin_ill", words):
        assert word in str(error)
    assert list(found.backends) == ["alpha"]
    assert found.viewer("heat")


def test_a_hook_that_does_not_exist_is_an_error_and_no_silence(plugin):
    found = load((plugin("typo", llmtrace_backend=[backend("alpha")]),))
    assert "llmtrace_backend" in str(found.errors[0])
    assert found.backends["typo"].status == "broken"


def test_a_hook_may_answer_with_nothing(plugin):
    assert load((plugin("empty", llmtrace_backends=None),)).errors == ()


def test_of_two_backends_of_one_name_the_first_is_used_and_both_are_named(plugin):
    first, second = backend("alpha"), backend("alpha")
    found = load((plugin("b", llmtrace_backends=[second]), plugin("a", llmtrace_backends=[first])))
    assert found.backend("alpha") is first
    (error,) = found.errors
    assert isinstance(error, DuplicateBackendError)
    assert "fake_plugin_a" in str(error)
    assert "fake_plugin_b" in str(error)


def test_one_name_may_be_a_backend_and_a_viewer(plugin):
    found = load((plugin("a", llmtrace_backends=[backend("same")], llmtrace_viewers=[named("same")]),))
    assert not found.errors
    assert found.backend("same")
    assert found.viewer("same")


def test_a_backend_whose_runtime_is_not_installed_is_broken_with_the_way_to_mend_it(plugin):
    found = load((plugin("a", llmtrace_backends=[backend("alpha", "numpy", "no-such-runtime-at-all")]),))
    assert found.errors == ()
    with pytest.raises(BackendNotFoundError, match="pip install no-such-runtime-at-all"):
        found.backend("alpha")


def test_near_names_are_offered(plugin):
    found = load(
        (
            plugin(
                "a",
                llmtrace_backends=[backend("torch")],
                llmtrace_influence_methods=[named("rollout")],
                llmtrace_viewers=[named("html")],
            ),
        )
    )
    with pytest.raises(BackendNotFoundError, match="Did you mean torch"):
        found.backend("troch")
    with pytest.raises(UnknownMethodError, match="Did you mean rollout"):
        found.method("rolout")
    with pytest.raises(UnknownMethodError, match="Did you mean html"):
        found.viewer("htm")


def test_what_is_installed_is_looked_for_once():
    assert plugins() is plugins()
