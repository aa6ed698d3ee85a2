"""A peer's own environment: a virtual one that lies over the running one, so that both tools meet on the same PyTorch, and in which nothing more
can be installed once the peer is there.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.benchmarks.performance.peers import Peer

ROOT = Path(__file__).parents[3]
REFUSAL = '#!/bin/sh\necho "pip is blocked here: $*" >&2\nexit 1\n'


class NotInstalledError(Exception):
    """A peer could not be installed, and why."""


def ready(peer: Peer, directory: Path) -> Path:
    """The interpreter of a peer's environment in `directory`, which is made where it is not there yet. Raises `NotInstalledError`."""
    place = directory / peer.distribution
    done = place / "installed"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if done.exists():
        return python
    venv.create(place, clear=True, with_pip=True)
    beside = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    under = "\n".join(f"import site; site.addsitedir({path!r})" for path in _packages())
    (Path(beside) / "beside.pth").write_text(under + "\n", encoding="utf-8")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer.distribution]
    made = subprocess.run(command, capture_output=True, text=True, env=_clean(), check=False)  # noqa: S603  our own interpreter
    if made.returncode:
        said = (made.stderr or made.stdout).strip().splitlines() or ["pip said nothing"]
        raise NotInstalledError(said[-1])
    _block(python.parent, Path(beside))
    done.write_text("", encoding="utf-8")
    return python


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def _block(programs: Path, packages: Path) -> None:
    """Whatever the peer installs by itself fails: the module and the programs are exchanged for ones that refuse."""
    for program in programs.glob("pip*"):
        program.write_text(REFUSAL, encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (packages / "pip" / "__main__.py").write_text('raise SystemExit("pip is blocked here")\n', encoding="utf-8")


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def blocked(python: Path) -> dict[str, str]:
    """The variables of a process in which a peer runs: nothing is installed and nothing fetched."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    return _clean() | {"PATH": path, "PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
