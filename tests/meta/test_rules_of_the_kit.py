"""The kit's own rules: it is taken whole, gaps are declared and strict, and a run that held a backend to nothing has failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmtrace.errors import OptionError
from llmtrace.testing import BackendConformance
from llmtrace.testing.conformance import tests as laws
from llmtrace.testing.kit.base import beyond
from llmtrace.testing.model import FAMILIES
from tests.meta.honest import Honest
from tests.meta.inner import judge_file

HEAD = """
import pytest
from llmtrace.protocol import Gap
from llmtrace.testing import BackendConformance
from tests.meta.honest import Honest
from tests.meta.wrong_values import HeadsReversed
"""
WRONG = """
class Wrong(Honest):
    session = HeadsReversed
"""


@pytest.fixture
def suite(tmp_path):
    """Writes a file of tests, as whoever tests a backend would."""

    def write(text):
        file = tmp_path / f"test_{tmp_path.name}.py"
        file.write_text(HEAD + text)
        return file

    return write


def test_every_test_states_its_law_in_a_sentence():
    found = laws()
    assert len(found) > 35
    for name, law in found.items():
        assert law.endswith((".", ".)")), name
        assert len(law) > 30, name
    assert len(set(found.values())) == len(found)


def test_a_test_of_the_kit_cannot_be_replaced():
    with pytest.raises(OptionError, match="Sly replaces test_runs_repeat of the kit: declare a gap"):
        type("Sly", (BackendConformance,), {"backend": Honest, "test_runs_repeat": lambda self: None})


def test_a_test_of_the_kit_cannot_be_taken_away():
    with pytest.raises(OptionError, match="Sly replaces test_runs_repeat"):
        type("Sly", (BackendConformance,), {"backend": Honest, "test_runs_repeat": None})


@pytest.mark.parametrize("name", ["model", "tiny", "bench", "pytest_generate_tests"])
def test_what_the_tests_are_given_cannot_be_replaced(name):
    with pytest.raises(OptionError, match=f"Sly replaces {name} of the kit"):
        type("Sly", (BackendConformance,), {"backend": Honest, name: lambda self: None})


def test_what_is_the_authors_may_be_set_also_in_a_base_class_of_his_own():
    own = {"backend": Honest, "gaps": {}, "source": lambda self, tiny, directory: tiny.directory, "patience": 1.0}
    own |= {"text": "abc", "variants": {}}
    base = type("Base", (BackendConformance,), own)
    assert type("Sub", (base,), {"helper": 1}).patience == 1.0


def test_a_base_class_cannot_replace_one_either():
    class Calm:
        def test_runs_repeat(self):
            pass

    with pytest.raises(OptionError, match="Sly replaces test_runs_repeat"):
        type("Sly", (Calm, BackendConformance), {"backend": Honest})


def test_a_family_cannot_be_taken_away_and_others_may_come():
    with pytest.raises(OptionError, match="Small leaves out the family mixtral"):
        type(
            "Small",
            (BackendConformance,),
            {"backend": Honest, "families": tuple(f for f in FAMILIES if f != "mixtral")},
        )
    assert (
        type("Large", (BackendConformance,), {"backend": Honest, "families": (*FAMILIES, "olmo2")}).families[-1]
        == "olmo2"
    )


def test_a_gap_is_an_expected_failure_with_its_kind_and_reason(suite):
    file = suite(WRONG + """
class TestWrong(BackendConformance):
    backend = Wrong
    gaps = {"test_every_equation_holds[llama]": Gap("ours", "heads are in another order")}
""")  # fmt: skip
    code, outcomes = judge_file(file, "-k", "test_every_equation_holds and (llama or gpt2)")
    assert code == pytest.ExitCode.TESTS_FAILED
    gap, other = (outcomes.call(f"test_every_equation_holds[{family}]") for family in ("llama", "gpt2"))
    assert gap.skipped and gap.wasxfail == "ours: heads are in another order"
    assert other.failed


@pytest.mark.parametrize("key", ["test_conversions_say_how", "llama", "test_conversions_say_how[llama]"])
def test_a_gap_where_the_test_passes_has_failed(suite, key):
    file = suite(f"""
class TestHonest(BackendConformance):
    backend = Honest
    gaps = {{{key!r}: Gap("upstream", "its runtime does not tell")}}
""")
    code, outcomes = judge_file(file, "-k", "test_conversions_say_how and llama")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "XPASS(strict)" in outcomes.call("test_conversions_say_how[llama]").longreprtext


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("no_such_test_at_all", "no family."),
        ("test_runs_repaet", "Did you mean test_runs_repeat?"),
        ("gema2", "Did you mean gemma2?"),
        ("test_runs_repeat[lama]", "Did you mean llama?"),
        (
            "test_nothing_leaks[llama]",
            "no family.",
        ),  # it runs once, not for each family: the gap would never be looked at
    ],
)
def test_a_gap_that_names_nothing_ends_the_run_with_a_near_name(suite, capsys, key, said):
    file = suite(f"""
class TestHonest(BackendConformance):
    backend = Honest
    gaps = {{{key!r}: Gap("ours", "later")}}
""")
    code, outcomes = judge_file(file)
    assert code == pytest.ExitCode.USAGE_ERROR
    found = "".join(capsys.readouterr())
    assert f"TestHonest declares a gap {key!r}, which is no test and no family." in found
    assert said in found
    assert not outcomes.reports


def test_a_kit_that_only_skips_has_failed(suite, capsys):
    file = suite("""
class TestAbsent(BackendConformance):
    backend = Honest

    def source(self, tiny, directory):
        pytest.skip("its converter is not installed")
""")
    code, outcomes = judge_file(file, "-k", "runs_repeat or conversions")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert outcomes.reports and not [each for reports in outcomes.reports.values() for each in reports if each.failed]
    assert (
        "TestAbsent: not one test of the conformance kit passed, so nothing is known of the backend"
        in capsys.readouterr().out
    )


def test_a_kit_of_which_everything_is_a_gap_has_failed(suite, capsys):
    file = suite(WRONG + """
class TestWrong(BackendConformance):
    backend = Wrong
    gaps = {"test_every_equation_holds": Gap("ours", "heads are in another order")}
""")  # fmt: skip
    code, _ = judge_file(file, "-k", "test_every_equation_holds and llama")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "TestWrong: not one test of the conformance kit passed" in capsys.readouterr().out


def test_each_kit_of_a_run_answers_for_itself(suite, capsys):
    file = suite("""
class TestThere(BackendConformance):
    backend = Honest

class TestAbsent(BackendConformance):
    backend = Honest

    def source(self, tiny, directory):
        pytest.skip("its converter is not installed")
""")
    code, _ = judge_file(file, "-k", "conversions and llama")
    assert code == pytest.ExitCode.TESTS_FAILED
    said = capsys.readouterr().out
    assert "TestAbsent: not one" in said and "TestThere: not one" not in said


def test_the_rules_hold_where_tests_run_in_several_processes(suite):
    pytest.importorskip("xdist")
    absent = suite(WRONG + """
class TestThere(BackendConformance):
    backend = Wrong
    gaps = {"test_every_equation_holds": Gap("ours", "heads are in another order")}

class TestAbsent(BackendConformance):
    backend = Honest

    def source(self, tiny, directory):
        pytest.skip("its converter is not installed")
""")  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(absent),
        "-n",
        "2",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "(equation or conversions) and gpt2",
    ]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=absent.parent)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "1 passed, 2 skipped, 1 xfailed" in done.stdout
    assert "TestAbsent: not one test of the conformance kit passed" in done.stdout
    assert "TestThere: not one" not in done.stdout


SOURCE = """
class TestConverts(BackendConformance):
    backend = Honest
    gaps = {{"mixtral": Gap("upstream", "its format has no experts")}}

    def source(self, tiny, directory):
        if tiny.family == "mixtral":
            raise {error}
        return tiny.directory
"""


def test_a_family_that_the_format_cannot_say_is_a_gap_where_source_says_so(suite):
    file = suite(SOURCE.format(error="NotImplementedError('no experts')"))
    code, outcomes = judge_file(file, "-k", "conversions_say_how and (mixtral or llama)")
    assert code == pytest.ExitCode.OK
    assert outcomes.call("test_conversions_say_how[mixtral]").wasxfail == "upstream: its format has no experts"


def test_a_source_that_breaks_is_no_gap(suite):
    file = suite(SOURCE.format(error="KeyError('experts')"))
    code, outcomes = judge_file(file, "-k", "conversions_say_how and (mixtral or llama)")
    assert code == pytest.ExitCode.TESTS_FAILED
    said = outcomes.call("test_conversions_say_how[mixtral]")
    assert said.failed
    assert "the kit's own `source` failed for the family mixtral" in said.longrepr.reprcrash.message
    assert (
        "KeyError: 'experts'; for a family that the format cannot say, raise NotImplementedError" in said.longreprtext
    )


def test_a_kit_whose_every_family_is_a_gap_says_so(suite):
    file = suite("""
class TestNone(BackendConformance):
    backend = Honest
    gaps = dict.fromkeys(BackendConformance.families, Gap("ours", "later"))
""")
    _, outcomes = judge_file(file, "-k", "closing_ends")
    (said,) = [each for reports in outcomes.reports.values() for each in reports if each.failed]
    assert "every family is a gap, so there is no model to look at" in said.longreprtext


def test_only_what_is_beyond_the_limit_is_listed_in_dataflow_order():
    away = {"logits": 3.0, "noise": 1e-7, "q": 0.1, "z": 2.0} | {f"s{place}": 1.0 for place in range(4)}
    order = ["noise", "q", "z", "s0", "s1", "s2", "s3", "logits"]
    assert beyond(away, 1e-6, order) == (
        "q: 1.0e-01, z: 2.0e+00, s0: 1.0e+00, s1: 1.0e+00, s2: 1.0e+00 and 2 more (rounding explains 1.0e-06)"
    )
    assert beyond({"q": float("nan")}, 1e-6, order).startswith("q: nan")
    assert beyond(away, 5.0, order) == ""
