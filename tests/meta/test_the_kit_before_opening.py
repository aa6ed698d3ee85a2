"""What the kit says of a backend before a model is open, where that needs a runtime, or a format, of its own."""

from __future__ import annotations

import json
import sys

import pytest

from tests.meta.inner import judge_file

TEST = "test_the_runtime_is_not_imported_before_a_model_is_opened"
PLUGIN = """
{first}
from tests.meta.honest import Honest

class Eager(Honest):
    runtime = 'Eager'
    distributions = ('numpy', 'eager-runtime')

    @classmethod
    def open(cls, source, options):
        {opening}
        return super().open(source, options)
"""
KIT = """
from eager_plugin import Eager
from llmtrace.testing import BackendConformance

class TestEager(BackendConformance):
    backend = Eager
"""


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Judges a backend whose runtime is installed as a package, or editable from a directory of sources."""

    def judge(first, opening, *, editable, url=True):
        site, sources = tmp_path / "site", tmp_path / ("sources" if editable else "site")
        info = site / "eager_runtime-1.0.dist-info"
        info.mkdir(parents=True)
        sources.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: eager-runtime\nVersion: 1.0\n")
        if editable:
            (info / "RECORD").write_text("__editable___eager_runtime_finder.py,,\n")
            about = {"url": sources.as_uri(), "dir_info": {"editable": True}}
            (info / "direct_url.json").write_text(json.dumps(about if url else {}))
        else:
            (info / "top_level.txt").write_text("eager_runtime\n")
            (info / "RECORD").write_text("eager_runtime.py,,\n")
        (sources / "eager_runtime.py").write_text("VERSION = '1.0'\n")
        (site / "eager_plugin.py").write_text(PLUGIN.format(first=first, opening=opening))
        (site / "test_eager.py").write_text(KIT)
        for place in {site, sources}:
            monkeypatch.syspath_prepend(place)
        for name in ("eager_runtime", "eager_plugin"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        _, outcomes = judge_file(site / "test_eager.py", "-k", "runtime_is_not_imported or what_plugins_are")
        assert outcomes.call("test_the_backend_is_what_plugins_are").passed
        return outcomes.call(TEST)

    return judge


@pytest.mark.parametrize("editable", [False, True])
def test_a_backend_whose_module_imports_its_runtime_is_caught(judged, editable):
    said = judged("import eager_runtime", "pass", editable=editable)
    assert "eager_runtime is imported before a model is opened" in said.longrepr.reprcrash.message


@pytest.mark.parametrize("editable", [False, True])
def test_one_whose_open_imports_it_passes(judged, editable):
    assert judged("", "import eager_runtime", editable=editable).passed


def test_a_runtime_of_which_no_module_is_known_is_not_said_to_be_held_to_it(judged):
    said = judged("import eager_runtime", "pass", editable=True, url=False)
    assert said.skipped
    assert "nothing that open imports is known to be of eager-runtime" in str(said.longrepr)


FILES = """
import numpy as np
from llmtrace.errors import ModelOpenError
from llmtrace.testing import BackendConformance
from tests.meta.honest import Honest

class Zipped(Honest):
    @staticmethod
    def probe(source, path):
        if path is None or not path.is_file() or path.suffix != ".npz":
            return None
        return "native" if {looks} else None

    @classmethod
    def open(cls, source, options):
        {opens}

class TestZipped(BackendConformance):
    backend = Zipped

    def source(self, tiny, directory):
        np.savez(directory / "model.npz", **tiny.weights)
        return directory / "model.npz"
"""
BEGINS, REFUSES = "path.read_bytes()[:2] == b'PK'", "raise ModelOpenError(f'{source} lacks the tensor embed.W_E.')"


@pytest.mark.parametrize(
    ("looks", "opens", "says"),
    [
        (BEGINS, REFUSES, ""),
        ("True", REFUSES, "it claims a .npz file that holds a text as 'native': look at its first bytes"),
        ("path.read_bytes()[:1] > b'Z'", REFUSES, "holds bytes without a meaning"),
        ("path.read_bytes()[:1] < b'A'", REFUSES, "holds noughts"),
        (BEGINS, "return super().open(cls.good, options)", "archive.npz was refused without a ModelOpenError"),
        (BEGINS, "raise ModelOpenError('It lacks a tensor.')", "the error does not name"),
    ],
)
def test_a_backend_that_claims_by_the_suffix_alone_is_caught(tmp_path, looks, opens, says):
    file = tmp_path / f"test_{tmp_path.name}.py"
    file.write_text(FILES.format(looks=looks, opens=opens))
    _, outcomes = judge_file(file, "-k", "suffix_alone")
    said = outcomes.call("test_a_suffix_alone_is_no_claim")
    assert said.passed != bool(says)
    assert says in said.longreprtext
