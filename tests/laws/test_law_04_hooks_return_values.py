"""Law 4. Hooks return values; they do not mutate arguments. One broken plugin is reported and the rest load."""

import inspect

import pytest

from llmtrace import hookspecs
from tests.laws.programs import run

HOOKS = [
    (name, hook) for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("llmtrace_")
]


@pytest.mark.parametrize(("name", "hook"), HOOKS, ids=[name for name, _ in HOOKS])
def test_a_hook_takes_nothing_that_it_could_change_and_returns_a_sequence(name, hook):
    signature = inspect.signature(hook)
    assert list(signature.parameters) == []
    assert str(signature.return_annotation).startswith("Sequence[")
    assert hook.__doc__
    assert len(hook.__doc__.strip().splitlines()) == 1, "a hook is a signature and one sentence"


def install(folder, distribution, module, source):
    """A distribution on a path of its own, as pip would leave it."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[llmtrace]\n{module} = {module}\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libcuda.so.1: cannot open shared object file')", "libcuda"),
        ("import a_runtime_that_is_not_installed", "a_runtime_that_is_not_installed"),
        ("import sys; sys.exit(1)", "SystemExit"),
        ("import llmtrace\n@llmtrace.hookimpl\ndef llmtrace_backends():\n    1 / 0\n", "ZeroDivisionError"),
        ("import llmtrace\n@llmtrace.hookimpl\ndef llmtrace_bakends():\n    return []\n", "llmtrace_bakends"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_one_broken_distribution_is_reported_by_name_and_the_rest_work(tmp_path, source, words):
    install(tmp_path, "a-broken-plugin", "a_broken_plugin", source)
    errors, backends, prediction = run(
        f"""
    import sys, json
    sys.path.insert(0, {str(tmp_path)!r})
    import llmtrace
    from llmtrace.plugins import plugins
    found = plugins()
    with llmtrace.open("builtin:induction") as model:
        prediction = model.predict("a b c a b").text
    print(json.dumps([[str(error) for error in found.errors], sorted(found.backends), prediction]))
    """
    )
    mine = [error for error in errors if "a-broken-plugin" in error]
    assert len(mine) == 1
    assert words in mine[0]
    assert "reference" in backends
    assert prediction
