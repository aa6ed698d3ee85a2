"""How these tests call the command line, and what they call it on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import frozen
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from llmtrace.cli.app import app
from llmtrace.testing import handmade

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@frozen
class Run:
    """What one call came to."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        """Standard output as strict JSON: one document and nothing else."""

        def refuse(word):
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def error(self) -> str:
        """The one line of a command that could not."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert not self.out
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.err.endswith(line + "\n")
        return line


def call(*args, input=None, env=None) -> Run:
    """One call in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], input=input, env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Run(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """`cli("trace", MODEL, …)`, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def validate():
    """`validate("trace", document)` raises where a document is not what its schema says."""

    def check(command, document):
        schema = json.loads((SCHEMAS / f"{command}.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        faults = [
            f"{error.json_path}: {error.message:.300}" for error in Draft202012Validator(schema).iter_errors(document)
        ]
        assert not faults

    return check


@pytest.fixture
def checkpoint(tmp_path):
    """The embedded model as a directory that a test may spoil."""
    return handmade.write(tmp_path / "checkpoint")
