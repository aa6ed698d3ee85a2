"""What a plugin may import stands in the guide's table; the backends here, and the example, import nothing else of the core, and there is
nothing in it that neither they nor the guide's own code use."""

import ast
import re

import pytest

from tests.laws.programs import ROOT, name, sources, tree

GUIDE = (ROOT / "plugins.md").read_text("utf-8")
SECTION = GUIDE.partition("## What you may import")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| `(llmtrace[\w.]*)` \| (.*?) \|", SECTION, re.MULTILINE)
PROMISED = {module: set(re.findall(r"`(\w+)`", names)) for module, names in ROWS}
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if not block.startswith(">>>")]
BACKENDS = [*sources("backends"), *sources("llmtrace/reference"), *sources("docs/examples")]


def taken(tree):
    """Module and names of every import of the core, wherever it stands in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "llmtrace":
            yield node.module, [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.partition(".")[0] == "llmtrace")


@pytest.mark.parametrize("path", BACKENDS, ids=name)
def test_a_backend_imports_only_what_the_guide_promises(path):
    for module, names in taken(tree(path)):
        if module.startswith("llmtrace.reference") and "reference" in path.parts:
            continue  # its own files
        assert module in PROMISED, f"{module} is promised to no backend"
        if PROMISED[module]:
            assert set(names) <= PROMISED[module], f"{module}: {', '.join(sorted(set(names) - PROMISED[module]))}"


def test_what_is_promised_is_there_and_used():
    assert len(PROMISED) > 15
    code = [*map(tree, BACKENDS), *map(ast.parse, BLOCKS)]
    used = {module for each in code for module, _ in taken(each)}
    for module, names in PROMISED.items():
        there = vars(__import__(module, fromlist=["*"]))
        assert all(each in there or hasattr(__import__(module, fromlist=[each]), each) for each in names), module
    assert set(PROMISED) <= used, sorted(set(PROMISED) - used)
