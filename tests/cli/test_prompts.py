"""A file of prompts: texts and JSON, a mark in front, and what is refused by its line."""

from __future__ import annotations

import click
import pytest

from llmtrace.cli.prompts import Asked, asked_for, read


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "prompts"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def test_each_line_is_a_text_or_json_and_knows_where_it_stands(file):
    path = file('a  f \n\n"a\\nb"\r\n[0, 1]\n"Hello," she said.\nnullify [0]\n123\n')
    assert read(path) == [
        Asked("a  f ", f"{path}:1"), Asked("a\nb", f"{path}:3"), Asked([0, 1], f"{path}:4"), Asked('"Hello," she said.', f"{path}:5"),
        Asked("nullify [0]", f"{path}:6"), Asked("123", f"{path}:7"),
    ]  # fmt: skip


def test_a_byte_order_mark_is_no_part_of_the_prompt(file):
    assert [each.prompt for each in read(file("\ufeffa f\n\ufeffb\n"))] == ["a f", "\ufeffb"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[INST] hello", "is no valid JSON"),
        ("[INST] hello", 'as "\\[INST\\] hello"'),
        ('{"prompt": "a"', "is no valid JSON"),
        ('{"prompt": "a"}', "is neither a text nor a list of token ids"),
        ("null", "is neither"),
        ("[]", "is an empty list"),
        ("[1, 2.5]", "is neither"),
        ("  [1, true]", "is neither"),
    ],
)
def test_what_looks_like_json_and_is_no_prompt_is_refused_by_its_line(file, line, says):
    with pytest.raises(click.UsageError, match=rf"prompts:2: .*{says}"):
        read(file(f"a f\n{line}\n"))


def test_no_prompt_and_no_text_are_refused(file):
    with pytest.raises(click.UsageError, match="There is no prompt"):
        read(file("\n \n"))
    with pytest.raises(click.UsageError, match="not valid UTF-8"):
        read(file(b"\xff\n"))


def test_options_come_before_the_file(file):
    found = asked_for(["a\tf"], [(0, 1)], file("b"))
    assert [each.prompt for each in found] == ["a\tf", [0, 1], "b"]
    assert [each.where for each in found][:2] == ["--prompt 'a f'", "--tokens"]
    assert asked_for([], [], None) == []
