"""The backend author's guide is complete, and a stranger's backend made of its code works."""

from __future__ import annotations

import ast
import re
import sys
import typing
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs
import numpy as np
import pytest

from llmtrace import hookspecs, protocol
from llmtrace.circuits.motif import Motif
from llmtrace.comparison.case import Case, Hypothesis
from llmtrace.influence.logit_lens import Lens, Reading
from llmtrace.influence.method import Answer, InfluenceFold, Method, Task
from llmtrace.influence.record import Contract, Influence
from llmtrace.influence.standing import Standing
from llmtrace.loading import load
from llmtrace.model import Model
from llmtrace.opening import choose
from llmtrace.plugins import Plugins
from llmtrace.testing import check_method, check_viewer
from llmtrace.trace import Token
from llmtrace.view.viewer import Viewer
from tests.docs.documents import ROOT, headings

GUIDE = ROOT / "plugins.md"


def hooks() -> list[str]:
    return [name for name, value in vars(hookspecs).items() if getattr(value, "llmtrace_spec", None)]


def members(record: type) -> list[str]:
    """The public names of a protocol or a record: annotations, methods and properties of its own."""
    own = {**vars(record).get("__annotations__", {}), **vars(record)}
    return [name for name in own if not name.startswith("_") and name != "Any"]


def contract() -> list[str]:
    """Every class of the protocol, and every member of each."""
    classes = [
        value for value in vars(protocol).values() if isinstance(value, type) and value.__module__ == protocol.__name__
    ]
    return [
        heading
        for kind in classes
        for heading in (kind.__name__, *(f"{kind.__name__}.{name}" for name in members(kind)))
    ]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("name", [*hooks(), *contract()])
def test_the_guide_has_a_heading_for(name: str) -> None:
    assert f"`{name}`" in headings(GUIDE)


def test_the_contract_is_what_the_core_calls() -> None:
    """The list that the headings are checked against is not empty, nor short of what every backend needs."""
    assert {"TraceBackend.probe", "TraceSession.run", "Observer.layer_done", "Request.cuts", "Gap.reason"} <= set(
        contract()
    )
    assert hooks() == [
        "llmtrace_backends",
        "llmtrace_influence_methods",
        "llmtrace_viewers",
        "llmtrace_hypotheses",
        "llmtrace_motifs",
        "llmtrace_conformance",
    ]


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("llmtrace_influence_methods", Method),
        ("llmtrace_viewers", Viewer),
        ("llmtrace_hypotheses", Hypothesis),
        ("llmtrace_motifs", Motif),
    ],
)
def test_the_section_of_a_hook_explains_every_field_of_what_it_returns(heading: str, record: type) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    section = text[text.index(f"### `{heading}`") :].partition("\n### ")[0].partition("\n## ")[0].partition("```")[0]
    names = [field.name for field in attrs.fields(record)] if attrs.has(record) else members(record)
    assert [name for name in names if f"`{name}" not in section] == []


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("llmtrace_influence_methods", Task),
        ("llmtrace_influence_methods", Answer),
        ("llmtrace_influence_methods", InfluenceFold),
        ("llmtrace_hypotheses", Case),
        ("llmtrace_viewers", Contract),
        ("llmtrace_viewers", Influence),
        ("llmtrace_viewers", Lens),
        ("llmtrace_viewers", Reading),
        ("llmtrace_viewers", Standing),
        ("llmtrace_viewers", Token),
    ],
)
def test_the_section_of_a_hook_explains_every_field_of_what_it_is_given_and_answers(heading: str, record: type) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    section = text[text.index(f"### `{heading}`") :].partition("\n### ")[0]
    prose = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    names = [field.name for field in attrs.fields(record)] if attrs.has(record) else members(record)
    assert names
    assert [name for name in names if not re.search(rf"`{name}\b", prose)] == []


def test_the_guides_methods_and_viewers_pass_the_checks_that_it_offers(installed: Plugins) -> None:
    for method in installed.methods.values():
        check_method(method)
    for viewer in installed.viewers.values():
        check_viewer(viewer)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Plugins]:
    """The guide's own definitions as a module that an entry point names."""
    kept: list[ast.stmt] = []
    for block in blocks():
        if not block.startswith(">>>"):
            definitions = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
            constants = [
                node for node in ast.parse(block).body
                if isinstance(node, definitions)
                or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper())
            ]  # fmt: skip
            kept += constants
    (tmp_path / "toy_of_the_guide.py").write_text(ast.unparse(ast.Module(kept, [])), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield load((EntryPoint("toy", "toy_of_the_guide", "llmtrace"),))
    sys.modules.pop("toy_of_the_guide", None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of the guide's runtime."""
    path, rng = tmp_path / "toy.npz", np.random.default_rng(3)
    sizes = {"wte": (11, 8), "0.qkv": (8, 24), "0.out": (8, 8), "1.qkv": (8, 24), "1.out": (8, 8), "head": (8, 11)}
    np.savez(path, **{name: rng.normal(size=size).astype("float32") for name, size in sizes.items()})
    return path


def test_the_guides_plugin_loads_and_brings_all_three_kinds(installed: Plugins) -> None:
    assert installed.errors == ()
    assert (set(installed.backends), set(installed.methods), set(installed.viewers)) == (
        {"toy"},
        {"last_pattern", "last_direct"},
        {"csv"},
    )


@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_the_guides_backend_opens_its_files_and_holds_at_every_site(
    installed: Plugins, source: Path, preset: str
) -> None:
    choice = choose(str(source), found=installed)
    assert (choice.backend.name, choice.reason) == ("toy", "native")
    with Model(choice.backend.open(str(source), choice.backend.preset(preset))) as model:
        errors = model.verify([3, 1, 4, 1, 5, 9, 2])
    assert {error.status for error in errors} == {"holds"}
    assert {error.site for error in errors} == set(model.session.offers)


def test_the_guides_pyproject_names_the_entry_point_group() -> None:
    import tomllib

    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert tomllib.loads(text)["project"]["entry-points"]["llmtrace"] == {"toy": "llmtrace_toy.plugin"}
