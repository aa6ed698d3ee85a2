"""`llmtrace new-backend` writes the skeleton of a plugin and says what to do with it."""

from __future__ import annotations

from pathlib import Path


def test_it_writes_into_this_directory_and_lists_what_it_wrote(cli):
    run = cli("new-backend", "toy")
    assert run.code == 0
    *files, empty, following, last = run.out.splitlines()
    assert files == sorted(files)
    assert [file for file in files if not Path(file).is_file()] == []
    assert str(Path("llmtrace-toy", "llmtrace_toy", "plugin.py")) in files
    assert (empty, following) == ("", 'next: pip install -e "llmtrace-toy[test]"')
    assert last == "then: llmtrace check-backend toy --family llama"


def test_its_document_is_as_its_schema_says(cli, validate, tmp_path):
    (tmp_path / "deep").mkdir()
    document = cli("new-backend", "my-rt", "--into", "deep", "--json").document
    validate("new-backend", document)
    assert (document["backend"], document["package"]) == ("my-rt", "llmtrace_my_rt")
    assert document["directory"] == str(Path("deep", "llmtrace-my-rt"))
    assert all((tmp_path / document["directory"] / name).is_file() for name in document["files"])


def test_what_cannot_be_written_is_one_line_and_exit_2(cli):
    assert "cannot be called 'Toy'" in cli("new-backend", "Toy").error
    assert "There is no directory" in cli("new-backend", "toy", "--into", "absent").error
    assert cli("new-backend", "toy").code == 0
    assert "is there already" in cli("new-backend", "toy").error
