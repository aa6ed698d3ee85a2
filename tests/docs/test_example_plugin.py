"""The example plugin installs beside the core as a stranger would install it, is found, and passes its own conformance tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

pytestmark = pytest.mark.slow
EXAMPLE = ROOT / "docs" / "examples" / "llmtrace-mlx"
ABSENT = re.compile(r"No matching distribution found for (mlx\S*)")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}


def run(*line: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in line], cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment that holds the core, the example, and what they ask for."""
    if sys.platform not in ("linux", "darwin"):
        pytest.skip(f"MLX has no wheels for {sys.platform}")
    place = tmp_path_factory.mktemp("stranger")
    venv.create(place)
    python = place / "bin" / "python"
    quick = ("--quiet", "--no-compile", "--disable-pip-version-check")
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *quick, ROOT, f"{EXAMPLE}[test]", cwd=place)
    if absent := ABSENT.search(done.stderr):
        pytest.skip(f"pip finds no wheel of {absent[1]} for this platform")
    assert done.returncode == 0, done.stderr
    return python.parent


def test_the_example_is_found_as_a_working_backend(scripts: Path) -> None:
    done = run(scripts / "llmtrace", "backends", "--json", cwd=scripts)
    assert done.returncode == 0, done.stderr
    (mlx,) = [row for row in json.loads(done.stdout)["backends"] if row["name"] == "mlx"]
    assert (mlx["status"], mlx["distribution"], mlx["version"]) == ("ok", "llmtrace-mlx", "0.1.0")
    assert mlx["capabilities"] == ["weights"]


def test_the_example_passes_the_conformance_kit(scripts: Path) -> None:
    own = ("-c", EXAMPLE / "pyproject.toml", "-p", "no:cacheprovider")  # not the settings of this repository
    done = run(scripts / "python", "-m", "pytest", "-q", *own, EXAMPLE / "tests", cwd=scripts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 100


def test_the_command_line_checks_it_as_its_plugin_says(scripts: Path) -> None:
    done = run(scripts / "llmtrace", "check-backend", "mlx", cwd=scripts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mlx-lm reads no sliding_window" in done.stdout


def test_the_page_says_what_the_kit_found(scripts: Path) -> None:
    """Every gap that is declared stands in the page's table, and no other."""
    text = (ROOT / "docs" / "example-plugin.md").read_text(encoding="utf-8")
    declared = run(
        scripts / "python", "-c",
        "import json; from llmtrace_mlx.conformance import MlxConformance as kit; print(json.dumps(sorted(kit.gaps)))",
        cwd=EXAMPLE / "tests",
    )  # fmt: skip
    assert declared.returncode == 0, declared.stderr
    families = {re.sub(r".*\[|\]", "", key) for key in json.loads(declared.stdout)}
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))
    assert {family for family, result in rows.items() if "gap" in result} == families
