"""Plugins come by entry points; what is wrong with one is reported, and the others work."""

import re
import sys
import types
from importlib.metadata import EntryPoint

import pytest
from attrs import define, evolve

import llmtrace
from llmtrace.circuits.motif import Expectation, Motif
from llmtrace.circuits.where import Where
from llmtrace.errors import (
    BackendNotFoundError,
    DuplicateBackendError,
    PluginLoadError,
    SchemaVersionError,
    UnknownMethodError,
)
from llmtrace.influence.method import Method
from llmtrace.influence.record import Contract
from llmtrace.loading import load
from llmtrace.plugins import plugins
from tests.specs import FakeOptions


def backend(name, *distributions, **members):
    """A sound backend, but for `members`; None takes one away."""
    sound = {
        "name": name, "runtime": name.title(), "distributions": distributions, "options": FakeOptions, "capabilities": (),
        "probe": staticmethod(lambda source, path: None), "preset": staticmethod(lambda preset: FakeOptions()),
        "open": staticmethod(lambda source, options: None),
    }  # fmt: skip
    return type(name, (), {member: value for member, value in (sound | members).items() if value is not None})


def method(name, **fields):
    contract = Contract(output="o", features="f", process="p", fixed="x", unit="u")
    return evolve(Method(name, "Title", "T", "T", None, "Someone 2020", contract, lambda task: None), **fields)


def viewer(name, **members):
    sound = {"name": name, "suffix": ".txt", "render": staticmethod(lambda influences, lens=None: "")}
    return type(name, (), sound | members)


def motif(name, **fields):
    back = Where("pattern[q, q - 2]")
    return evolve(Motif(name, "Title", "Someone 2020", {"head": back}, {"head": Expectation(">=", 0.5)}), **fields)


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
                llmtrace_influence_methods=[method("sum")],
                llmtrace_viewers=[viewer("heat")],
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


@pytest.mark.parametrize(
    "source",
    [
        "raise RuntimeError('at import')",
        "import sys; sys.exit(3)",
        "def f(:",
        "class Own(BaseException): pass\nraise Own",
        "raise GeneratorExit",
    ],
)
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
        (raising(GeneratorExit()), "GeneratorExit"),
        (5, "TypeError"),
        ([object()], "is no class"),
    ],
)
def test_a_hook_that_fails_is_reported_by_plugin_and_hook(plugin, answer, words):
    found = load(
        (
            plugin("ill", llmtrace_backends=answer, llmtrace_viewers=[viewer("heat")]),
            plugin("well", llmtrace_backends=[backend("alpha")]),
        )
    )
    (error,) = found.errors
    assert isinstance(error, PluginLoadError)
    for word in ("llmtrace_backends", "fake_plugin_ill", words):
        assert word in str(error)
    assert found.backend("alpha")
    assert found.viewer("heat")
    assert found.backends["ill"].status == "broken"
    with pytest.raises(BackendNotFoundError, match=f"'ill'.*is broken.*{words}"):
        found.backend("ill")


class Exploding(type):
    @property
    def runtime(cls):
        raise RuntimeError("do not look")


@define
class Loose:
    """Settings that can be changed."""

    threads: int = 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (type("Bare", (), {"name": "bad"}), "lacks `runtime`, `distributions`, `options`"),
        (backend("bad", probe=None, open=None), "lacks `probe`, `open`"),
        (backend("bad", "numpy")(), "is no class"),
        (backend("Oc to"), "has the name 'Oc to'"),
        (backend("7up"), "has the name '7up'"),
        (backend("bad", runtime=7), "has `runtime` 7, which is no text"),
        (backend("bad", ""), r"has `distributions` \('',\): it must be a tuple of names"),
        (backend("bad", distributions="numpy"), "has `distributions` 'numpy': it must be a tuple of names"),
        (backend("bad", capabilities=["weights"]), r"has `capabilities` \['weights'\]: it must be a tuple"),
        (
            backend("bad", capabilities=("weights", "wings")),
            "has the capability 'wings'; there are weights, replay, many",
        ),
        (backend("bad", options=Loose), "`options` that are no frozen attrs class"),
        (backend("bad", options=dict), "`options` that are no frozen attrs class"),
        (backend("bad", options=FakeOptions()), "`options` that are no frozen attrs class"),
        (backend("bad", preset=FakeOptions()), "a `preset` that cannot be called"),
        (backend("bad", schema_version="1"), "has `schema_version` '1', which is no whole number"),
        (Exploding("Bad", (), {"name": "bad", "distributions": ()}), "cannot be looked at: RuntimeError: do not look"),
    ],
)
def test_a_malformed_backend_is_reported_as_broken_and_takes_no_other_with_it(plugin, wrong, words):
    found = load(
        (
            plugin("bad", llmtrace_backends=[wrong, backend("beta")]),
            plugin("good", llmtrace_backends=[backend("alpha")]),
        )
    )
    (error,) = found.errors
    assert isinstance(error, PluginLoadError)
    assert "fake_plugin_bad" in str(error)
    assert re.search(words, str(error))
    assert found.backend("alpha")
    assert found.backend("beta")
    with pytest.raises(BackendNotFoundError, match=f"'bad'.*is broken.*{words}"):
        found.backend("bad")


@pytest.mark.parametrize(
    ("hook", "wrong", "words"),
    [
        ("llmtrace_influence_methods", viewer("bad"), "is no `llmtrace.influence.method.Method`"),
        ("llmtrace_influence_methods", method("Bad!"), "has the name 'Bad!'"),
        ("llmtrace_influence_methods", method("bad", needs=("T",)), r"has `needs` \('T',\), which is no text"),
        ("llmtrace_influence_methods", method("bad", needs="Q"), "has `needs` 'Q': .* T .* W"),
        ("llmtrace_influence_methods", method("bad", needs="TW"), "has `needs` 'TW'"),
        ("llmtrace_influence_methods", method("bad", aims="no"), "has `aims` 'no', which is neither True nor False"),
        ("llmtrace_influence_methods", method("bad", predictions=1), "has `predictions` 1, which is neither"),
        ("llmtrace_influence_methods", method("bad", completeness=3), "has `completeness` 3"),
        ("llmtrace_influence_methods", method("bad", contract="none"), "`contract` that is no `Contract`"),
        ("llmtrace_influence_methods", method("bad", fold=None), "a `fold` that cannot be called"),
        ("llmtrace_viewers", viewer("bad")(), "is no class"),
        ("llmtrace_viewers", type("Bad", (), {"name": "bad"}), "lacks `suffix`, `render`"),
        ("llmtrace_viewers", viewer("bad", suffix="txt"), "the suffix 'txt', which does not begin with a dot"),
        ("llmtrace_viewers", viewer("bad", render="x"), "a `render` that cannot be called"),
        ("llmtrace_motifs", method("bad"), "is no `llmtrace.circuits.motif.Motif`"),
        ("llmtrace_motifs", motif("bad", paper=""), "has `paper` '', which is no text"),
        ("llmtrace_motifs", motif("bad", title=3), "has `title` 3, which is no text"),
    ],
)
def test_a_malformed_method_viewer_or_motif_is_reported_and_takes_no_other_with_it(plugin, hook, wrong, words):
    good = {"llmtrace_influence_methods": method, "llmtrace_viewers": viewer, "llmtrace_motifs": motif}[hook]("good")
    found = load((plugin("bad", **{hook: [wrong, good]}, llmtrace_backends=[backend("alpha")]),))
    (error,) = found.errors
    assert hook in str(error)
    assert re.search(words, str(error))
    assert found.backend("alpha")
    assert "good" in {**found.methods, **found.viewers, **found.motifs}
    assert "bad" not in {**found.methods, **found.viewers, **found.motifs}


def test_what_llmtrace_itself_brings_is_sound():
    assert plugins().errors == ()


def test_a_hook_that_does_not_exist_is_an_error_and_no_silence(plugin):
    found = load((plugin("typo", llmtrace_backend=[backend("alpha")]),))
    assert "llmtrace_backend" in str(found.errors[0])
    assert found.backends["typo"].status == "broken"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("llmtrace_backend", "llmtrace_backends"),
        ("llmtrace_viewer", "llmtrace_viewers"),
        ("llmtrace_influence_method", "llmtrace_influence_methods"),
        ("llmtrace_conformence", "llmtrace_conformance"),
    ],
)
def test_a_misspelt_hook_is_offered_the_near_one(plugin, typed, meant):
    (error,) = load((plugin("typo", **{typed: []}),)).errors
    assert f"unknown hook {typed!r}" in str(error)
    assert str(error).endswith(f"Did you mean {meant}?")


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


@pytest.mark.parametrize("where", ["import", "hook", "look"])
def test_an_interrupt_is_no_fault_of_a_plugin(plugin, tmp_path, monkeypatch, where):
    class Interrupting(type):
        @property
        def runtime(cls):
            raise KeyboardInterrupt

    (tmp_path / "fake_plugin_interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {
        "import": lambda: EntryPoint("x", "fake_plugin_interrupted", "llmtrace"),
        "hook": lambda: plugin("x", llmtrace_backends=raising(KeyboardInterrupt())),
        "look": lambda: plugin("x", llmtrace_backends=[Interrupting("Bad", (), {"name": "bad"})]),
    }[where]()
    with pytest.raises(KeyboardInterrupt):
        load((entry,))


@pytest.mark.parametrize(
    ("theirs", "upgrade"),
    [(llmtrace.SCHEMA_VERSION + 1, "llmtrace-core"), (llmtrace.SCHEMA_VERSION - 1, "llmtrace-ill")],
)
def test_a_backend_for_another_schema_is_broken_and_it_is_told_which_to_upgrade(plugin, theirs, upgrade):
    entry = of_a_distribution(plugin("bad", llmtrace_backends=[backend("bad", schema_version=theirs), backend("beta")]))
    found = load((entry, plugin("good", llmtrace_backends=[backend("alpha")])))
    (error,) = found.errors
    assert isinstance(error, SchemaVersionError)
    assert f"'bad' of fake_plugin_bad of llmtrace-ill is written for version {theirs} of the signal schema" in str(
        error
    )
    assert [each.fix for each in found.broken] == [f"upgrade {upgrade}"]
    assert found.backend("alpha")
    assert found.backend("beta")
    with pytest.raises(BackendNotFoundError, match=r"is broken: .*signal schema"):
        found.backend("bad")


def test_a_backend_for_this_schema_or_for_none_in_particular_is_sound(plugin):
    both = [backend("alpha", schema_version=llmtrace.SCHEMA_VERSION), backend("beta")]
    assert load((plugin("good", llmtrace_backends=both),)).errors == ()


def test_kits_are_not_asked_for_before_they_are_wanted(plugin):
    asked = []
    entry = plugin("a", llmtrace_backends=[backend("alpha")], llmtrace_conformance=lambda: asked.append(1) or [])
    found = load((entry,))
    assert (found.errors, asked) == ((), [])
    assert list(found.backends["alpha"].kits()) == [[]]
    assert asked == [1]


def test_one_name_may_be_a_backend_and_a_viewer(plugin):
    found = load((plugin("a", llmtrace_backends=[backend("same")], llmtrace_viewers=[viewer("same")]),))
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
                llmtrace_influence_methods=[method("rollout")],
                llmtrace_viewers=[viewer("html")],
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


class Installed:
    """A distribution, as an entry point knows it."""

    name, version = "llmtrace-ill", "2.3"


def of_a_distribution(entry):
    vars(entry)["dist"] = Installed
    return entry


@pytest.mark.parametrize(
    "hook", ["llmtrace_backends", "llmtrace_influence_methods", "llmtrace_viewers", "llmtrace_motifs"]
)
@pytest.mark.parametrize(("answer", "words"), [(raising(RuntimeError("ill")), "RuntimeError: ill"), ([3], "is no ")])
def test_whichever_hook_fails_the_plugin_is_listed_with_its_distribution_the_hook_and_the_fix(
    plugin, hook, answer, words
):
    found = load((of_a_distribution(plugin("bad", **{hook: answer})), plugin("good")))
    (broken,) = found.broken
    assert (broken.plugin, broken.distribution, broken.version, broken.hook) == ("bad", "llmtrace-ill", "2.3", hook)
    assert words in broken.reason
    assert broken.reason in str(found.errors[0])
    assert broken.fix == "upgrade llmtrace-ill or uninstall it, and tell its author"


def test_a_plugin_that_cannot_be_imported_is_listed_with_what_it_needs():
    found = load((of_a_distribution(EntryPoint("bad", "no_such_module_anywhere", "llmtrace")),))
    (broken,) = found.broken
    assert (broken.hook, broken.distribution) == ("", "llmtrace-ill")
    assert "ModuleNotFoundError" in broken.reason
    assert broken.fix == "install no_such_module_anywhere, which it imports, or uninstall llmtrace-ill"


def test_a_name_that_is_taken_is_listed_with_both(plugin):
    first, second = (plugin(name, llmtrace_viewers=[viewer("heat")]) for name in "ab")
    (broken,) = load((first, of_a_distribution(second))).broken
    assert (broken.plugin, broken.hook) == ("b", "llmtrace_viewers")
    assert "'heat'" in broken.reason
    assert "fake_plugin_a" in broken.reason
    assert broken.fix == "uninstall one of them"


@pytest.mark.parametrize("suffix", [".html", ".HTML"])
def test_a_suffix_that_is_taken_stays_with_the_first_and_the_second_is_listed_and_can_be_named(plugin, suffix):
    core = EntryPoint("viewers", "llmtrace.view.plugin", "llmtrace")
    vars(core)["dist"] = type("Core", (), {"name": "llmtrace-core", "version": "0"})
    entry = of_a_distribution(
        plugin("a", llmtrace_viewers=[viewer("mine", suffix=suffix), viewer("own", suffix=".md")])
    )
    found = load((entry, core))
    assert [found.viewer_of(file) for file in ("c.html", "C.HTML", "c.txt", "d/c.md", "c.png", "html")] == [
        "html", "html", "text", "own", None, None,
    ]  # fmt: skip
    assert found.viewer("mine").suffix == suffix
    (error,) = found.errors
    assert isinstance(error, DuplicateBackendError)
    (broken,) = found.broken
    assert (broken.plugin, broken.distribution, broken.hook) == ("a", "llmtrace-ill", "llmtrace_viewers")
    for words in ("'mine'", "llmtrace-ill", "'html' of llmtrace.view.plugin of llmtrace-core"):
        assert words in broken.reason
    assert broken.fix == "choose it with --viewer mine, or uninstall one of them"
    with pytest.raises(UnknownMethodError) as refused:
        found.viewer("theirs")
    assert "is broken" not in str(refused.value)


def test_a_longer_suffix_is_nearer(plugin):
    found = load((plugin("a", llmtrace_viewers=[viewer("page", suffix=".html"), viewer("heat", suffix=".heat.html")]),))
    assert found.errors == ()
    assert (found.viewer_of("x.heat.html"), found.viewer_of("x.html")) == ("heat", "page")


def test_it_is_known_which_distribution_brought_a_method_or_a_viewer(plugin):
    entry = of_a_distribution(
        plugin("a", llmtrace_viewers=[viewer("heat")], llmtrace_influence_methods=[method("sum")])
    )
    found = load((entry,))
    assert found.owner("viewer", "heat") == found.owner("influence method", "sum") == "llmtrace-ill"
    assert found.owner("viewer", "sum") == "an unknown distribution"


def test_a_sound_plugin_is_not_listed_as_broken(plugin):
    assert load((plugin("good", llmtrace_viewers=[viewer("heat")]),)).broken == ()
    assert plugins().broken == ()


def test_a_method_or_viewer_that_is_not_there_may_be_that_of_a_broken_plugin(plugin):
    hooks = {"llmtrace_influence_methods": raising(RuntimeError("ill"))}
    found = load((of_a_distribution(plugin("bad", **hooks)),))
    for ask in (found.method, found.viewer):
        with pytest.raises(
            UnknownMethodError, match=r"The plugin bad of llmtrace-ill is broken: `llmtrace backends` says"
        ):
            ask("mine")


def test_a_motif_is_found_by_name_and_a_missing_one_is_refused_with_near_names(plugin):
    found = load((plugin("a", llmtrace_motifs=[motif("two-back")]),))
    assert found.motif("two-back").title == "Title"
    assert found.owner("motif", "two-back")
    with pytest.raises(UnknownMethodError, match="Did you mean two-back"):
        found.motif("two-bck")
