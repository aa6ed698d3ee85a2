"""Law 8. Records are frozen attrs classes with a docstring per field; a saved trace carries enough to run it again."""

import ast
import importlib

import attrs
import numpy as np
import pytest

import llmtrace
from tests.laws.programs import ROOT, name, sources, tree

PUBLIC = [
    path
    for path in sources("llmtrace")
    if name(path).startswith(
        ("llmtrace/spec", "llmtrace/selection", "llmtrace/trace", "llmtrace/protocol", "llmtrace/plugins", "llmtrace/opening",
         "llmtrace/recording", "llmtrace/schema/", "llmtrace/store/", "llmtrace/influence/record")
    )
]  # fmt: skip


def classes(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]


def decorators(node):
    return [ast.unparse(decorator) for decorator in node.decorator_list]


@pytest.mark.parametrize("path", sources("llmtrace", "backends"), ids=name)
def test_every_record_is_a_frozen_attrs_class(path):
    for node in classes(path):
        for decorator in decorators(node):
            assert "dataclass" not in decorator, node.name
            if decorator.startswith(("attr", "define", "mutable")) and "frozen" not in decorator:
                fields = [ast.unparse(line.target) for line in node.body if isinstance(line, ast.AnnAssign)]
                assert all(field.startswith("_") for field in fields), f"{node.name} is a record: it has public fields"
        bases = [ast.unparse(base) for base in node.bases]
        assert not {"NamedTuple", "TypedDict"} & set(bases), node.name


@pytest.mark.parametrize("path", PUBLIC, ids=name)
def test_every_field_of_a_public_record_says_what_it_holds(path):
    for node in classes(path):
        if not any("frozen" in decorator for decorator in decorators(node)) or node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), node.name
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.AnnAssign):
                following = node.body[place + 1] if place + 1 < len(node.body) else None
                said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert said, f"{node.name}.{ast.unparse(statement.target)}"


def records():
    for path in PUBLIC:
        module = importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        for kind in vars(module).values():
            if isinstance(kind, type) and attrs.has(kind) and kind.__module__ == module.__name__:
                yield kind


@pytest.mark.parametrize("kind", list(records()), ids=lambda kind: kind.__name__)
def test_a_record_cannot_be_changed(kind):
    empty = kind.__new__(kind)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(empty, attrs.fields(kind)[0].name, 1)


def test_a_saved_trace_is_run_again_from_what_it_says(tmp_path):
    with llmtrace.open("builtin:induction", backend="reference", preset="exact") as model:
        trace = model.trace("a b c a b", capture=["blocks.*.attn.pattern", llmtrace.select("logits", tokens=[-1])])
    trace.save(tmp_path / "a.trace")
    del trace
    loaded = llmtrace.load(tmp_path / "a.trace")
    said = loaded.model
    with llmtrace.open(said.source, backend=said.backend, preset=said.preset, options=said.options) as model:
        again = model.trace(loaded.ids, capture=loaded.selection)
    assert again.model == said
    assert list(again) == list(loaded)
    for site in loaded:
        assert again[site].cut == loaded[site].cut
        np.testing.assert_array_equal(again[site].array, loaded[site].array)
