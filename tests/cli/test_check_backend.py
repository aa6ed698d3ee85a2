"""`llmtrace check-backend` runs the kit on an installed backend and says what became of each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.strangers import BACKEND, environment, install, llmtrace

LLAMA = ("--family", "llama")
TOY = BACKEND.format(name="toy")
KIT = """
@hookimpl
def llmtrace_conformance():
    from llmtrace.testing import BackendConformance
    class ToyConformance(BackendConformance):
        backend = Stranger
        gaps = {gaps}
    return [ToyConformance]
"""
SPOILED = """
def run(self, request, observer):
    {act}
    self.inner.run(request, observer)
Session.run = run
"""


@pytest.fixture
def check(tmp_path):
    """Checks the toy backend, spoiled by some source, in a directory of its own."""
    place = tmp_path / "work"
    place.mkdir()

    def run(more, *args, **env):
        folder = install(tmp_path / "site", "llmtrace-toy", TOY + more)
        return llmtrace("check-backend", "toy", *args, path=(folder,), cwd=place, more=env)

    run.place = place
    return run


def outcomes(done):
    """Test and family to outcome, kind and message."""
    return {
        (row["test"], each["family"]): (each["outcome"], each["kind"], each["message"])
        for row in json.loads(done.stdout)["tests"] for each in row["outcomes"]
    }  # fmt: skip


def test_a_sound_backend_passes_and_the_answer_is_a_table(check):
    done = check("", *LLAMA, "--test", "every equation", "--test", "replayed signals")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"| {'test':35} | llama |", f"| {'-' * 35} | ----- |"]
    assert set(lines[2:4]) == {
        f"| {'every equation holds':35} | ✓     |",
        "| replayed signals are taken as given | –     |",
    }
    assert "toy passes this part of the conformance kit: 1 passed, 0 failed, 1 left out" in done.stdout
    assert "llmtrace-toy 1.0, numpy" in lines[-1]
    assert "holding toy to the conformance kit" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_document_is_as_its_schema_says(check, validate):
    done = check("", *LLAMA, "--test", "every_equation", "--test", "replayed", "--json")
    document = json.loads(done.stdout)
    validate("check-backend", document)
    assert (document["backend"], document["distribution"], document["version"]) == ("toy", "llmtrace-toy", "1.0")
    assert (document["verdict"], document["complete"], document["families"]) == ("passes", False, ["llama"])
    assert document["counts"] == {"passed": 1, "failed": 0, "gap": 0, "skipped": 1}
    laws = {row["test"]: row["law"] for row in document["tests"]}
    assert laws["test_every_equation_holds"].startswith("Under `exact`, each captured signal is its equation")
    skipped = outcomes(done)["test_replayed_signals_are_taken_as_given", "llama"]
    assert skipped == ("skipped", "", "toy does not claim the capability 'replay'")


def test_what_does_not_depend_on_the_model_is_run_once(check):
    done = check("", "--test", "probing", "--test", "conversions")
    assert done.returncode == 0, done.stderr
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line
    ]
    assert head == ["test", "llama", "gpt2", "gpt_neox", "gemma2", "qwen3", "mixtral", "mistral", "once"]
    assert ["probing is quick", *[""] * 7, "✓"] in rows
    assert ["conversions say how", *["✓"] * 7, ""] in rows


def test_a_fault_is_bad_news_with_the_reason(check):
    spoiled = SPOILED.format(act="request = evolve(request, tokens=request.tokens[::-1])")
    done = check(spoiled, *LLAMA, "--test", "signals are the references", "--test", "conversions", "--json")
    assert done.returncode == 1
    found = outcomes(done)
    assert found["test_conversions_say_how", "llama"][0] == "passed"
    outcome, _, message = found["test_signals_are_the_references", "llama"]
    assert outcome == "failed"
    assert "away from the reference" in message
    assert f"failed: signals are the references (llama): {message}" in done.stderr


def test_an_error_is_told_with_its_name_and_without_the_place_of_the_model(check):
    spoiled = (
        "def open(source, options):\n    raise OSError(f'{source}: no driver')\nStranger.open = staticmethod(open)\n"
    )
    done = check(spoiled, *LLAMA, "--test", "conversions")
    assert done.returncode == 1
    assert (
        "- conversions say how (llama): BackendError: The backend toy failed in open: OSError: llama-0: no driver."
        in done.stdout
    )
    assert "Not one test passed, so nothing is known of toy." in done.stdout


@pytest.mark.parametrize("test", ["conversions", "runs repeat"])
def test_an_exception_of_the_plugin_is_told_with_its_line(check, test):
    spoiled = SPOILED.format(act="[][0]")
    if test == "conversions":
        spoiled = "def open(source, options):\n    [][0]\nStranger.open = staticmethod(open)\n"
    done = check(spoiled, *LLAMA, "--test", test, "--json")
    ((_, _, message),) = outcomes(done).values()
    module = check.place.parent / "site" / "llmtrace_toy.py"
    line = 1 + module.read_text().splitlines().index("    [][0]")
    assert "IndexError: list index out of range" in message
    assert message.endswith(f" (llmtrace_toy.py:{line})")


def test_an_error_that_the_plugin_raised_on_purpose_or_the_kit_found_has_no_line(check):
    done = check(SPOILED.format(act="raise BackendError('no driver')"), *LLAMA, "--test", "repeat", "--json")
    assert outcomes(done)["test_runs_repeat", "llama"][2] == "BackendError: no driver"


def test_a_family_gap_does_not_hide_a_broken_source(check):
    kit = KIT.format(gaps="{'mixtral': Gap('upstream', 'no experts')}").replace(
        "        gaps =",
        """        def source(self, tiny, directory):
            if tiny.family == 'mixtral':
                {error}
            return tiny.directory
        gaps =""",
    )
    narrowed = ("--family", "mixtral", "--family", "llama", "--test", "conversions", "--json")
    done = check(kit.replace("{error}", "return {}['experts']"), *narrowed)
    outcome, _, message = outcomes(done)["test_conversions_say_how", "mixtral"]
    assert (done.returncode, outcome) == (1, "failed")
    assert message.startswith("the kit's own `source` failed for the family mixtral")
    assert "KeyError: 'experts'" in message
    assert "raise NotImplementedError (llmtrace_toy.py:" in message


def test_a_family_that_the_format_cannot_say_is_a_gap(check):
    kit = KIT.format(gaps="{'mixtral': Gap('upstream', 'no experts')}").replace(
        "        gaps =",
        """        def source(self, tiny, directory):
            if tiny.family == 'mixtral':
                raise NotImplementedError('no experts')
            return tiny.directory
        gaps =""",
    )
    done = check(kit, "--family", "mixtral", "--family", "llama", "--test", "conversions", "--json")
    assert done.returncode == 0, done.stdout
    assert outcomes(done)["test_conversions_say_how", "mixtral"] == ("gap", "upstream", "no experts")


def test_what_is_left_out_is_told_with_the_reason(check):
    done = check("", "--test", "tokenizer")
    assert "Left out:" in done.stdout
    assert "- the tokenizer gives back the text: the session of toy has no tokenizer" in done.stdout


def test_an_ability_that_is_not_claimed_is_left_out_and_said(check):
    done = check("", *LLAMA, "--test", "every equation", "--test", "replayed")
    assert "- replayed signals are taken as given (llama): toy does not claim the capability 'replay'" in done.stdout


def test_what_the_core_refuses_names_the_backend(check):
    twice = "request.cuts and observer.signal('embed', request.cuts['embed'].apply(__import__('numpy').zeros((len(request.tokens), 64), 'float64')))"
    done = check(SPOILED.format(act=twice), *LLAMA, "--test", "every equation", "--json")
    assert (
        "SchemaViolationError: The backend toy handed over embed twice"
        in outcomes(done)["test_every_equation_holds", "llama"][2]
    )


def test_who_is_held_to_nothing_has_not_passed(check):
    done = check("", *LLAMA, "--test", "replayed", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["counts"] == {"passed": 0, "failed": 0, "gap": 0, "skipped": 1}
    assert document["verdict"] == "fails"


def test_a_declared_gap_is_no_failure_and_its_reason_is_told(check):
    spoiled = SPOILED.format(act="request = evolve(request, tokens=request.tokens[::-1])")
    gaps = '{"test_signals_are_the_references": Gap("upstream", "it reads backwards")}'
    done = check(
        spoiled + KIT.format(gaps=gaps), *LLAMA, "--test", "signals are the references", "--test", "conversions"
    )
    assert done.returncode == 0, done.stdout
    assert "| gap (upstream) |" in done.stdout
    assert "- signals are the references (llama): upstream: it reads backwards" in done.stdout


def test_a_gap_whose_test_passes_is_a_failure(check):
    gaps = '{"test_conversions_say_how[llama]": Gap("ours", "nobody wrote it")}'
    done = check(KIT.format(gaps=gaps), *LLAMA, "--test", "conversions", "--test", "repeat", "--json")
    assert done.returncode == 1
    outcome, _, message = outcomes(done)["test_conversions_say_how", "llama"]
    assert outcome == "failed"
    assert message == "passes, and is declared a gap (ours: nobody wrote it): delete the gap"


@pytest.mark.parametrize(
    ("act", "words"),
    [("os.abort()", "the process died: SIGABRT"), ("os._exit(7)", "the process died: exit status 7")],
)
def test_a_runtime_that_takes_the_process_down_has_failed_and_the_rest_goes_on(check, act, words):
    narrowed = (*LLAMA, "--test", "runs repeat", "--test", "conversions", "--test", "missing is accounted")
    done = check(SPOILED.format(act=act), *narrowed, "--json")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = outcomes(done)
    assert found["test_runs_repeat", "llama"] == ("failed", "", words)
    assert [outcome for outcome, _, _ in found.values()].count("passed") == 2


def test_a_test_that_does_not_end_is_stopped(check):
    done = check(
        SPOILED.format(act="time.sleep(100)"),
        *LLAMA,
        "--test",
        "repeat",
        "--test",
        "conversions",
        "--timeout",
        2,
        "--json",
    )
    assert done.returncode == 1
    assert outcomes(done)["test_runs_repeat", "llama"] == ("failed", "", "the process died: no end within 2 s")
    assert outcomes(done)["test_conversions_say_how", "llama"][0] == "passed"


def test_what_a_runtime_prints_does_not_reach_the_answer(check):
    act = "os.write(1, b'noise'); print('noise'); import atexit; atexit.register(lambda: os.write(1, b'noise'))"
    done = check(SPOILED.format(act=act), *LLAMA, "--test", "repeat", "--json")
    assert done.returncode == 0, done.stderr
    assert "noise" not in done.stdout + done.stderr


def test_a_thread_that_a_backend_leaves_running_is_not_waited_for(check):
    act = "import threading; threading.Thread(target=time.sleep, args=(600,)).start()"
    start = time.monotonic()
    done = check(SPOILED.format(act=act), *LLAMA, "--test", "repeat")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60


def test_the_callers_own_settings_and_tests_are_not_looked_at(check):
    (check.place / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\npython_classes = None\n")
    (check.place / "conftest.py").write_text("raise RuntimeError('not mine')\n")
    (check.place / "test_mine.py").write_text("def test_mine():\n    assert False\n")
    done = check("", *LLAMA, "--test", "repeat", PYTEST_ADDOPTS="--no-such-option", PYTEST_PLUGINS="no_such_plugin")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in check.place.iterdir()} <= {"pytest.ini", "conftest.py", "test_mine.py"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "@hookimpl\ndef llmtrace_conformance():\n    import no_such_module",
            "llmtrace_conformance of llmtrace-toy failed: ModuleNotFound",
        ),
        (
            "@hookimpl\ndef llmtrace_conformance():\n    sys.exit(3)",
            "llmtrace_conformance of llmtrace-toy failed: SystemExit: 3",
        ),
        ("@hookimpl\ndef llmtrace_conformance():\n    return [Stranger]", "which is no subclass of BackendConformance"),
        (
            KIT.format(gaps='{"test_conversions": Gap("ours", "x")}'),
            "declares a gap 'test_conversions', which is no test and no family",
        ),
    ],
)
def test_a_kit_that_cannot_be_had_is_one_line_and_exit_2(check, more, words):
    done = check(more, *LLAMA, "--test", "conversions", "-q")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_backend_that_is_not_there_or_broken_is_one_line_and_exit_2(check, cli):
    assert "Did you mean reference?" in cli("check-backend", "refrence").error
    done = check("Stranger.distributions = ('no-such-runtime',)\n", "-q")
    assert (done.returncode, done.stdout) == (2, "")
    said = "error: The backend 'toy' of llmtrace-toy is broken: it needs no-such-runtime, which is not installed: pip install no-such-runtime.\n"
    assert done.stderr == said


def test_a_family_or_a_test_that_is_not_there_is_one_line_and_exit_2(cli):
    assert "Did you mean gemma2?" in cli("check-backend", "reference", "--family", "gema2").error
    assert (
        "No test of the kit is called like 'telepathy'"
        in cli("check-backend", "reference", "--test", "telepathy").error
    )


def test_without_pytest_it_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr("llmtrace.testing.checking.find_spec", lambda name: None)
    assert 'pip install "llmtrace-core[testing]"' in cli("check-backend", "reference").error


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise")
@pytest.mark.parametrize("to", ["it alone", "the whole group, as a terminal does"])
def test_an_interrupt_ends_it_and_what_it_had_started(tmp_path, to):
    mark = tmp_path / "running"
    folder = install(
        tmp_path / "site",
        "llmtrace-toy",
        TOY + SPOILED.format(act=f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"),
    )
    line = [sys.executable, "-m", "llmtrace.cli", "check-backend", "toy", *LLAMA, "--test", "repeat"]
    process = subprocess.Popen(
        line, env=environment(folder), cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    inner = int(mark.read_text())
    os.kill(process.pid, signal.SIGINT) if to == "it alone" else os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(inner, 0)
