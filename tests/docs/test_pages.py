"""The pages are current, build without a warning, and send nobody to the wrong package."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmtrace.schema.names import NAMES
from tests.docs.documents import ROOT, documents

GENERATE = ROOT / "docs" / "generate"
SCHEMAS = ROOT / "docs" / "schemas"
BARE = re.compile(r"(?:pip3? install|uv add|pipx install)[^\n`|&;]*?[\s'\"]llmtrace(?![-_/\w.])")
LINKS = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.skipif(
    any(find_spec(f"llmtrace_{name}") is None for name in ("torch", "onnxruntime", "llamacpp")),
    reason="one page shows their options: pip install ./backends/torch ./backends/onnxruntime ./backends/llamacpp",
)
def test_the_generated_pages_say_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, str(GENERATE), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(tmp_path / "trees"),
        str(ROOT / "docs"),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html" / "reference" / "sites.html").is_file()


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINKS.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    base = ROOT if page == ROOT / "plugins.md" else page.parent
    assert [link for link in targets if not (base / link).exists()] == []


def test_no_page_or_message_installs_the_bare_name() -> None:
    """On the package index it is somebody else's."""
    texts = [*documents(), *ROOT.glob("llmtrace/**/*.py"), *ROOT.glob("backends/*/**/*.py"), ROOT / "pyproject.toml"]
    assert [str(path.relative_to(ROOT)) for path in texts if BARE.search(path.read_text(encoding="utf-8"))] == []


def test_the_search_for_the_bare_name_would_find_it() -> None:
    assert BARE.search("pip install -q llmtrace")
    assert not BARE.search("pip install ./llmtrace-core && llmtrace demo")


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object that a JSON Schema describes by its properties."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "object" in schema.get("type", ()):
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for inside in schema:
            yield from objects(inside)


@pytest.mark.parametrize("command", sorted(path.name for path in SCHEMAS.glob("*.json") if "manifest" not in path.name))
def test_a_schema_of_a_document_lets_no_field_be_missing_and_none_be_added(command: str) -> None:
    """Else a document that lost a field would be valid."""
    found = list(objects(json.loads((SCHEMAS / command).read_text(encoding="utf-8"))))
    assert found
    for each in found:
        assert each["additionalProperties"] is False
        assert set(each["properties"]) - set(each["required"]) <= {"bytes"}  # of a token that is not valid UTF-8 alone


def test_every_site_of_the_schema_has_a_row_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GENERATE)
    sites = importlib.import_module("sites")
    assert {row.site for row in NAMES} == {row.site for row in sites.shown()}


def test_a_row_of_names_that_differs_says_how() -> None:
    names = [
        name for row in NAMES for name in (row.transformer_lens, row.interp_engine, row.nnterp) if name is not None
    ]
    assert [name.name for name in names if not name.same and not name.note] == []
