"""Whoever reads the page can make its files: one directory a case, in which its commands find what they name."""

from __future__ import annotations

import pytest

for module in ("torch", "transformers", "llmtrace_torch", "llmtrace_onnxruntime", "llmtrace_llamacpp"):
    pytest.importorskip(module)

from tests.comparison.golden.__main__ import main
from tests.comparison.golden.page import cases, told
from tests.comparison.golden.writing import CASES


def test_every_case_of_the_page_can_be_written():
    numbers = [int(heading.partition(".")[0]) for heading in cases() if heading[0].isdigit()]
    assert numbers == list(CASES)


def test_a_case_is_written_with_all_that_its_commands_name(tmp_path, capsys):
    assert main(["--write", str(tmp_path / "cases"), "--only", "4", "9"]) == 0
    for heading in ("4. A softcap that is dropped", "9. A window that only long prompts reach"):
        place = tmp_path / "cases" / heading[0]
        named = [word.removeprefix("torch:") for each in told(heading) for word in each.command[2:] if word[:2] != "--"]
        assert named and all((place / name).exists() for name in named)
    assert "9: checkpoint, model.onnx, prompts.txt, short.txt" in capsys.readouterr().out


def test_what_is_there_already_and_a_case_that_is_not_are_refused(tmp_path, capsys):
    for arguments, says in (
        (["--write", str(tmp_path)], "already"),
        (["--write", str(tmp_path / "x"), "--only", "11"], "no case 11"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
