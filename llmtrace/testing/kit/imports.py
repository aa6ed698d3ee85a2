"""Imports: which modules of a process are a distribution's. **Editable**: installed as a pointer to a directory of sources, so that the
files which pip wrote down name none of its modules; what lies in that directory is then the distribution's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import frozen

from llmtrace.protocol import TraceBackend

MARK = "llmtrace kit: "
"""Begins the line of the process that is for us."""
SCRIPT = """
import json, os, sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path

def there():
    return {{name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}}

backend = attrgetter({name!r})(import_module({module!r}))
backend.probe({source!r}, Path({source!r}))
settings = backend.preset("exact")
before = there()
try:
    backend.open({source!r}, settings)
except BaseException:
    pass  # other tests say so
print({mark!r} + json.dumps([before, there()]), flush=True)
os._exit(0)
"""


@frozen
class Owned:
    """What is known of a distribution's modules."""

    packages: frozenset[str]
    """Names that are imported."""
    places: tuple[Path, ...]
    """Directories of sources, where it is editable."""

    def among(self, modules: dict[str, str], without: Iterable[str]) -> list[str]:
        """Its packages among the modules of a process (name to file), sorted."""
        found = {name.partition(".")[0] for name, file in modules.items() if self._has(name, file)}
        return sorted(found - set(without))

    def _has(self, name: str, file: str) -> bool:
        if name.partition(".")[0] in self.packages:
            return True
        return bool(file and self.places) and any(place in Path(file).resolve().parents for place in self.places)


def owned(distributions: Sequence[str]) -> Owned:
    """What is known of several."""
    packages = {
        name for name, owners in packages_distributions().items()
        if set(owners) & set(distributions) and not name.startswith("__editable__")
    }  # fmt: skip
    return Owned(frozenset(packages), tuple(place for name in distributions for place in _places(name)))


def _places(name: str) -> Iterator[Path]:
    """Where an editable distribution's sources lie (PEP 610)."""
    try:
        text = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        return
    about = json.loads(text) if text else {}
    if about.get("dir_info", {}).get("editable"):
        yield Path(url2pathname(urlsplit(about["url"]).path)).resolve()


def imported(backend: type[TraceBackend], source: str) -> tuple[dict[str, str], dict[str, str]]:
    """The modules of a process that asked the backend about a model, and of the same when it had opened it.

    Raises `AssertionError` where its module, `probe` or `preset` fails.
    """
    text = SCRIPT.format(module=backend.__module__, name=backend.__qualname__, source=source, mark=MARK)
    done = subprocess.run(  # noqa: S603  our own text
        [sys.executable, "-c", text],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # a backend may stand in a file of tests
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert lines, f"{backend.__module__} fails in a process of its own: {done.stderr}"
    before, after = json.loads(lines[-1].removeprefix(MARK))
    return before, after
