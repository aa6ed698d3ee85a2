"""What the laws share: the project's source, and fresh interpreters to run it in."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUNTIMES = ("torch", "transformers", "onnxruntime", "llama_cpp", "gguf", "onnx", "tensorflow", "jax")


def sources(*folders: str) -> list[Path]:
    """Every Python file of some folders of the project."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(code: str, **environment: str) -> Any:
    """What a fresh interpreter prints, as JSON; the code prints once."""
    import os

    line = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imports(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that statements import, outside of functions and of what is for type checkers only."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.If(test=test, body=inside, orelse=other):
                if "TYPE_CHECKING" not in ast.unparse(test):
                    yield from imports(inside)
                yield from imports(other)
            case ast.ClassDef(body=inside) | ast.With(body=inside):
                yield from imports(inside)
            case ast.Try(body=inside, handlers=handlers, orelse=other, finalbody=last):
                yield from imports([*inside, *other, *last, *(line for handler in handlers for line in handler.body)])
            case _:
                pass
