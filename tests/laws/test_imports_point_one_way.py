"""Imports point one way: errors ← spec ← schema ← trace ← protocol ← (influence, store, view, …) ← cli."""

import ast

import pytest

from tests.laws.programs import ROOT, imports, name, sources, tree

ORDER = [
    {"errors", "fingerprint", "safetensors_header", "progress", "threads", "words"},
    {"spec", "gguf_header"},
    {"schema", "gguf_split"},
    {"selection"},
    {"signals"},
    {"edits"},
    {"known"},
    {"trace"},
    {"tokens", "documents", "spans", "dataflow"},
    {"chat"},
    {"protocol", "hookspecs", "data"},
    {"brought", "calling", "overlaid", "probing"},
    {"plugins", "recording", "settings", "store"},
    {"deriving", "replacing", "loading"},
    {"model", "contract", "neutral", "checking", "families", "tokenizer"},
    {"unopened"},
    {"opening", "availability", "influence", "reference", "view", "circuits"},
    {"origin", "verifying"},
    {"comparison"},
    {"importing"},
    {"testing"},
    {"cli"},
]
"""Each may import what stands before it, and itself."""
RANK = {unit: rank for rank, units in enumerate(ORDER) for unit in units}
ASIDE = {("view", "influence"), ("influence", "view"), ("influence", "circuits")}
"""Neighbours of one rank that know each other's records: a viewer shows an influence, and heads are scored by motifs."""


def unit(module: str) -> str:
    """`schema` of `llmtrace.schema.steps.Step`; nothing for the package itself, whose names load lazily."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "llmtrace" else ""


@pytest.mark.parametrize("path", sources("llmtrace"), ids=name)
def test_a_module_imports_only_what_stands_before_it(path):
    home = path.relative_to(ROOT / "llmtrace").with_suffix("").parts[0]
    if home == "__init__":
        return
    assert home in RANK, f"{home} has no place in the order"
    for module in imports(tree(path).body):
        other = unit(module)
        if other and other not in ("__version__", "hookimpl") and other != home:
            allowed = RANK[other] < RANK[home] or (home, other) in ASIDE
            assert allowed, f"{home} imports {module}"


def test_every_unit_has_a_place():
    units = {path.relative_to(ROOT / "llmtrace").with_suffix("").parts[0] for path in sources("llmtrace")} - {
        "__init__"
    }
    assert units <= set(RANK)


@pytest.mark.parametrize("path", sources("backends"), ids=name)
def test_a_backend_knows_only_what_is_promised_to_a_stranger(path):
    """No name that begins with an underscore, and nothing of the command line, the viewer or the reference backend."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmtrace."):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")], ast.unparse(node)
            assert unit(node.module) not in ("cli", "view", "reference", "influence", "recording", "opening"), (
                ast.unparse(node)
            )
