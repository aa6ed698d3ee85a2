"""What is printed is strict JSON, or text that is safe in a terminal."""

from __future__ import annotations

import pytest

from llmtrace.cli.options import Out
from llmtrace.cli.output import answer, line
from llmtrace.cli.words import human, one_line, visible


def test_a_document_with_nan_is_never_printed(capsysbinary):
    with pytest.raises(ValueError, match="not JSON compliant"):
        answer(Out(json=True, quiet=False), lambda: {"score": float("nan")}, lambda: None)
    assert capsysbinary.readouterr().out == b""


def test_a_document_is_utf8_on_one_line_and_half_a_character_does_not_break_it(capsysbinary):
    answer(Out(json=True, quiet=False), lambda: {"text": "é🙂\n", "path": "\udcff"}, lambda: None)
    assert capsysbinary.readouterr().out == '{"text": "é🙂\\n", "path": "?"}\n'.encode()


def test_what_a_terminal_would_obey_is_escaped(capsys):
    line("a\x1b[31m\u202eb\x07")
    assert capsys.readouterr().out == "a\\x1b[31m\\u202eb\\x07\n"
    assert visible("é 🙂 中") == "é 🙂 中"
    assert one_line(" two\n lines\t") == "two lines"
    assert one_line("x" * 2000) == "x" * 2000
    assert one_line("\x1b" * 2001) == "\\x1b" * 1999 + "…"


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2.0 GiB"), (2**45, "32.0 TiB")]
)
def test_sizes_for_people(amount, text):
    assert human(amount) == text
