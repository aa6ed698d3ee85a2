"""Words on the command line become a prompt and a target."""

from __future__ import annotations

import click
import pytest

from llmtrace.cli.asking import read_prompt
from llmtrace.cli.options import Asked


@pytest.mark.parametrize(
    ("content", "prompt"),
    [(b"a b\n", "a b"), (b"a b\r\n", "a b"), (b"a\n\n", "a\n"), (b" a ", " a "), ("é🙂".encode(), "é🙂"), (b"", "")],
)
def test_a_prompt_file_is_read_as_it_is_but_for_the_last_line_break(tmp_path, content, prompt):
    (tmp_path / "x").write_bytes(content)
    assert read_prompt(Asked(None, None, str(tmp_path / "x"))) == prompt


def test_an_empty_text_is_a_prompt_and_nothing_is_none():
    assert read_prompt(Asked("", None, None)) == ""
    assert read_prompt(Asked(None, (3, 1), None)) == [3, 1]
    with pytest.raises(click.UsageError, match="missing"):
        read_prompt(Asked(None, None, None))
