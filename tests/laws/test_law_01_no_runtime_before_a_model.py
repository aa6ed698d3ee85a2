"""Law 1. The core imports no runtime, and no runtime is imported until a model is opened with it."""

import ast

import pytest

from tests.laws.programs import RUNTIMES, imports, name, run, sources, tree

WATCH = f"""
    import json, sys
    import importlib.abc
    RUNTIMES = {RUNTIMES!r}
    asked = []
    class Watch(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in RUNTIMES:
                asked.append(name)
    sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("path", sources("llmtrace"), ids=name)
def test_no_file_of_the_core_imports_a_runtime_when_it_is_imported(path):
    assert [module for module in imports(tree(path).body) if module.partition(".")[0] in RUNTIMES] == []


def test_only_the_test_kit_imports_a_runtime_inside_a_function():
    found = set()
    for path in sources("llmtrace"):
        for node in ast.walk(tree(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {module.partition(".")[0] for module in modules} & set(RUNTIMES):
                found.add(name(path))
    assert all(path.startswith("llmtrace/testing/") for path in found), found


def test_importing_every_module_of_the_core_asks_for_no_runtime():
    asked = run(
        WATCH
        + """
    import pkgutil, llmtrace, importlib
    for module in pkgutil.walk_packages(llmtrace.__path__, "llmtrace."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    print(json.dumps([asked, [name for name in RUNTIMES if name in sys.modules]]))
    """
    )
    assert asked == [[], []]


def test_opening_tracing_saving_and_attributing_with_the_reference_backend_imports_no_runtime(tmp_path):
    loaded = run(
        WATCH
        + f"""
    import llmtrace
    with llmtrace.open("builtin:induction") as model:
        trace = model.trace("a b c a b")
        model.influence("a b c a b")
        trace.save({str(tmp_path / "a.trace")!r})
    llmtrace.load({str(tmp_path / "a.trace")!r}).verify()
    print(json.dumps([model.info.backend, asked, [name for name in RUNTIMES if name in sys.modules]]))
    """
    )
    assert loaded == ["reference", [], []]


def test_looking_for_plugins_imports_no_runtime():
    """Whatever backends are installed: their plugin modules and probes come without their runtimes."""
    loaded = run(
        WATCH
        + """
    from llmtrace.plugins import plugins
    from pathlib import Path
    found = plugins()
    for entry in found.backends.values():
        if entry.backend is not None:
            for source in ("no such model", "x.gguf", "x.onnx", "."):
                entry.backend.probe(source, Path(source) if Path(source).exists() else None)
            entry.backend.preset("exact")
    print(json.dumps([sorted(found.backends), [name for name in RUNTIMES if name in sys.modules]]))
    """
    )
    assert "reference" in loaded[0]
    assert loaded[1] == []
