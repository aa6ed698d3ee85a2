"""Law 3. A backend maps native names to sites by data where it can and by structure where it must; never by one regex pile."""

import ast

import pytest

from llmtrace.families import FAMILIES
from tests.laws.programs import ROOT, name, sources, tree

BACKENDS = sorted(path for path in (ROOT / "backends").iterdir() if path.is_dir())


def regular_expressions(path):
    """The patterns of a file, as far as they are written there."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            yield ast.unparse(node)


@pytest.mark.parametrize("folder", BACKENDS, ids=lambda path: path.name)
def test_a_backend_has_a_handful_of_patterns_and_none_of_module_names(folder):
    found = [pattern for path in sources(f"backends/{folder.name}") for pattern in regular_expressions(path)]
    assert len(found) <= 5, found
    for word in ("q_proj", "self_attn", "c_attn", "mlp", "layers", "transformer.h", "model."):
        assert not [pattern for pattern in found if word in pattern], word


@pytest.mark.parametrize("path", sources("llmtrace/families"), ids=name)
def test_the_family_tables_are_data(path):
    assert len(list(regular_expressions(path))) <= 3


def test_there_is_one_row_a_family():
    assert len(FAMILIES) >= 20
    for family, row in FAMILIES.items():
        assert isinstance(family, str)
        assert row.spec is not None
