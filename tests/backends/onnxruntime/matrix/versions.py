"""Of what takes part: exporters that have a virtual environment of their own are asked there."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version

from tests.backends.onnxruntime.exports.environment import APART, python

HERE = ("onnxruntime", "onnx", "onnxscript", "torch", "transformers")
THERE = {"onnxruntime_genai": ("onnxruntime-genai",), "optimum": ("optimum-onnx", "transformers")}
"""Module to the distributions that its environment is asked for."""


def versions() -> dict[str, str]:
    """Distribution to version; those that are not installed are left out."""
    found = {name: said for name in HERE if (said := _installed(name))}
    for module, names in THERE.items():
        for name in names:
            if said := _asked(module, name):
                found[name if name not in found else f"{name} (of {APART[module]})"] = said
    return found


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _asked(module: str, name: str) -> str:
    if not python(module).exists():
        return ""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    ran = subprocess.run([python(module), "-c", code], capture_output=True, text=True, check=False)
    return ran.stdout.strip()
