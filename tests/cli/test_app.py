"""The command line as a whole: what it imports, how it ends, what it prints where."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

import llmtrace
from llmtrace.cli.app import COMMANDS, app

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


def process(*args, **more):
    return subprocess.run(
        [sys.executable, "-m", "llmtrace.cli", *args], capture_output=True, text=True, timeout=60, **more
    )


def imported_by(*args, env=None):
    """The modules that a process has imported when the command is over."""
    program = (
        "import sys, json, atexit\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"from llmtrace.cli import main\nmain({list(args)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ | (env or {})
    )
    return set(json.loads(done.stderr.splitlines()[-1])), done


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], [], *([command, "--help"] for command in COMMANDS)], ids=str
)
def test_help_imports_neither_a_runtime_nor_numpy_nor_rich(args):
    modules, done = imported_by(*args)
    assert done.returncode == 0
    assert not modules & {"torch", "transformers", "onnxruntime", "numpy", "rich", "pandas", "tokenizers"}


def test_shell_completion_lists_the_commands_and_imports_neither_a_runtime_nor_numpy():
    env = {"_LLMTRACE_COMPLETE": "bash_complete", "COMP_WORDS": "llmtrace ve", "COMP_CWORD": "1"}
    modules, done = imported_by(env=env)
    assert done.stdout.split() == ["plain,verify"]
    assert not modules & {"torch", "transformers", "numpy", "rich"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("llmtrace trace --backend re", "reference"),
        ("llmtrace influence --method at", "attention"),
        ("llmtrace trace --pre", "--preset"),
    ],
)
def test_shell_completion_knows_backends_methods_and_options(words, found):
    count = str(len(words.split()) - 1)
    env = os.environ | {"_LLMTRACE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    assert f"plain,{found}" in process(env=env).stdout.split()


def test_help_names_every_command_and_the_exit_codes(cli):
    run = cli("--help")
    assert run.code == 0
    assert all(f"\n  {command} " in run.out for command in COMMANDS)
    assert "0 done; 1 done, and the answer is bad news; 2 could not" in run.out
    assert cli().out == run.out


def answering():
    """Every command that answers, by its words; a group answers through its subcommands."""
    root = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(root, name)
        inner = command.list_commands(root) if isinstance(command, click.Group) else [None]
        yield from ([name, *filter(None, [sub])] for sub in inner)


@pytest.mark.parametrize("words", list(answering()), ids=" ".join)
def test_every_command_has_help_json_and_quiet(cli, words):
    run = cli(*words, "--help")
    assert (run.code, run.err) == (0, "")
    assert "--json" in run.out
    assert "--quiet" in run.out


def test_version(cli):
    assert cli("--version").out == f"llmtrace, version {llmtrace.__version__}\n"


def test_an_unknown_command_is_one_line_and_exit_2(cli):
    assert "'tarce'" in cli("tarce").error


def test_an_unknown_option_is_one_line_that_points_to_the_help(cli):
    assert "`llmtrace trace --help`" in cli("trace", MODEL, PROMPT, "--catpure", "x").error


def test_messages_go_to_standard_error_and_the_choice_of_backend_is_among_them(cli):
    run = cli("trace", MODEL, PROMPT, "--json")
    assert "backend reference" in run.err
    assert run.out.count("\n") == 1
    assert run.document["backend"] == "reference"


def test_quiet_leaves_standard_error_empty(cli):
    assert cli("trace", MODEL, PROMPT, "--quiet").err == ""


def test_a_bug_is_one_line_and_its_traceback_is_there_for_the_asking(cli, monkeypatch):
    monkeypatch.setattr("llmtrace.model.Model.trace", lambda *args, **kwargs: 1 / 0)
    line = cli("trace", MODEL, PROMPT).error
    assert "ZeroDivisionError" in line
    assert "LLMTRACE_TRACEBACK=1" in line
    assert "Traceback" in cli("trace", MODEL, PROMPT, env={"LLMTRACE_TRACEBACK": "1"}).err


def test_a_message_with_line_breaks_and_escapes_stays_one_harmless_line(cli, monkeypatch):
    def fail(*args, **kwargs):
        raise llmtrace.LLMTraceError("first\n  second \x1b[2J\u202e third")

    monkeypatch.setattr("llmtrace.model.Model.trace", fail)
    assert cli("trace", MODEL, PROMPT).error == "error: first second \\x1b[2J\\u202e third"


def test_an_interrupt_exits_with_130(cli, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("llmtrace.model.Model.trace", interrupt)
    run = cli("trace", MODEL, PROMPT)
    assert run.code == 130
    assert run.err.endswith("error: interrupted\n")


def test_too_little_memory_is_one_line(cli, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("llmtrace.model.Model.trace", fail)
    assert "not enough memory" in cli("trace", MODEL, PROMPT).error


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("args", [["info", MODEL, "--json"], ["--help"], ["trace", MODEL, PROMPT]], ids=str)
def test_a_reader_that_goes_away_ends_it_quietly(args):
    with subprocess.Popen(
        [sys.executable, "-c", "import sys, time; time.sleep(0.2); from llmtrace.cli import main; main(sys.argv[1:])", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        running.stdout.close()
        err = running.stderr.read().decode()
        code = running.wait(60)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert code == 141


def test_no_colour_is_printed_where_nobody_asked_for_it():
    assert "\x1b" not in process("lens", MODEL, PROMPT).stdout


def test_output_that_its_encoding_cannot_say_is_escaped():
    done = process("info", MODEL, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "16 \\xd7 64" in done.stdout


def test_a_module_call_and_the_entry_point_are_the_same_command():
    assert process("--version").stdout == f"llmtrace, version {llmtrace.__version__}\n"


def test_a_suggestion_of_clicks_ends_in_one_mark(cli):
    error = cli("trace", "builtin:induction", "a", "--devic", "cpu").error
    assert "'--device'? `llmtrace trace --help` tells more." in error.replace("app", "llmtrace")
    assert "?." not in error
