"""Virtual environments of exporters that want other versions than the tests have. **Environment**: a folder of that name beside others,
in `LLMTRACE_TEST_ENVIRONMENTS`, or `.venv-exports` in the working directory. It sees the packages of the Python that made it, and shadows some.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tests.backends.onnxruntime.exports.exporter import ExportError, NotInstalledError, last_line

APART = {"onnxruntime_genai": "genai", "optimum": "optimum"}
"""Modules that have an environment of their own, and its name."""
COMMAND = "python -m tests.backends.onnxruntime.exports EXPORTER ARCHITECTURE DIRECTORY --install"


def environments() -> Path:
    """Where environments lie."""
    return Path(os.environ.get("LLMTRACE_TEST_ENVIRONMENTS", ".venv-exports")).absolute()


def python(module: str) -> Path:
    """The interpreter of the environment that has a module."""
    return environments() / APART[module] / ("Scripts" if os.name == "nt" else "bin") / "python"


def check_installed(needs: Mapping[str, str]) -> None:
    """Raises `NotInstalledError`, which names what is missing and how to get it."""
    for module, requirement in needs.items():
        if module in APART:
            if not (environments() / APART[module] / "made").exists():
                raise NotInstalledError(f"{requirement} has no environment in {environments()}: {COMMAND}")
        elif find_spec(module) is None:
            raise NotInstalledError(f"{module} is not installed: pip install {requirement!r}")


def install(needs: Mapping[str, str]) -> None:
    """Make the environments that are missing. This downloads packages. Raises `ExportError` where pip fails."""
    for module, requirement in needs.items():
        if module in APART and not (environments() / APART[module] / "made").exists():
            place = environments() / APART[module]
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            _see_ours(place)
            ran = subprocess.run(
                [python(module), "-m", "pip", "install", "-q", requirement], capture_output=True, text=True, check=False
            )
            if ran.returncode:
                raise ExportError(f"pip install {requirement}: {last_line(ran.stderr)}")
            (place / "made").touch()


def _see_ours(place: Path) -> None:
    """Our packages come last on the path, so that what is installed there stands before them: torch is not installed twice."""
    folder = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    Path(folder, "zz_ours.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


def run(module: str, arguments: list[str]) -> None:
    """Run Python with arguments in the environment of a module. Raises `ExportError` with the last line of what it said."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(
        [python(module), *arguments], capture_output=True, text=True, check=False, env=offline, stdin=subprocess.DEVNULL
    )
    if ran.returncode:
        raise ExportError(last_line(ran.stderr))
