"""`llmtrace demo` shows what is known about the embedded model beside what is measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from attrs import evolve

from llmtrace.cli.known import Known, known
from llmtrace.data import DEMO, DEMO_MODEL, embedded

ARGS = ("demo", "--backend", "reference")


def test_every_known_answer_is_met_and_the_page_is_written(cli, validate, tmp_path):
    run = cli(*ARGS, "--json")
    validate("demo", run.document)
    assert (run.code, run.document["verdict"], run.document["page"]) == (0, "as_known", "llmtrace-demo.html")
    assert all(each["met"] for row in run.document["known"] for each in row["measured"])
    assert '"method":"alti"' in (tmp_path / "llmtrace-demo.html").read_text(encoding="utf-8")
    assert "wrote llmtrace-demo.html" in run.err


def test_the_known_answers_follow_from_the_prompt_and_the_weights_and_from_no_run():
    ids = (0, 3, 1, 6, 5, 2, 15, 4, 3, 1, 6)  # <bos> c a f e b o d c a f
    values = [each.value for each in known(DEMO, ids)]
    even = np.mean([1 / n for n in range(2, 12)])
    assert values == pytest.approx([1, even, 1, 7 / 10, 1 / 2, 1, 1 / (1 + 15 * math.exp(-14))])


def test_text_names_the_roles_the_answer_and_the_equations(cli):
    run = cli(*ARGS, "--no-html")
    assert run.code == 0
    assert "L1H0  induction head" in run.out
    assert "next: 'e'" in run.out
    assert "reference: 55 equations hold" in run.out
    assert "✗" not in run.out


def test_text_shows_how_far_a_measurement_may_be_off(cli):
    out = cli(*ARGS, "--no-html").out
    assert "known   within  measured" in out
    assert "0.50000    ±0.01   0.49571" in out


def test_no_page_is_written_where_none_is_wanted(cli, tmp_path):
    assert cli(*ARGS, "--no-html", "--json").document["page"] is None
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there_is_one_line_before_anything_runs(cli):
    assert "no directory" in cli(*ARGS, "--html", "nowhere/x.html").error


class Without:
    """The embedded model without one head."""

    def __init__(self, monkeypatch, layer, head):
        from llmtrace.reference import session

        class Ablated(session.ReferenceSession):
            def __init__(self, spec, weights, *args):
                name = f"blocks.{layer}.attn.W_O"
                weights = dict(weights)
                weights[name] = np.array(weights[name])
                weights[name][head] = 0
                super().__init__(spec, weights, *args)

        monkeypatch.setattr("llmtrace.reference.open.ReferenceSession", Ablated)


def test_a_model_without_its_induction_head_misses_and_exits_1(cli, monkeypatch):
    Without(monkeypatch, 1, 0)
    run = cli(*ARGS, "--json")
    assert (run.code, run.document["verdict"]) == (1, "missed")
    missed = [row["what"] for row in run.document["known"] if not row["measured"][0]["met"]]
    assert missed == ["share of the logit of 'e' that comes from position 4", "probability of 'e' as the next token"]
    assert "✗" in cli(*ARGS).out


def test_a_head_score_that_is_off_is_missed(cli, monkeypatch):
    from llmtrace.influence import heads

    real = heads.head_scores
    monkeypatch.setattr(
        "llmtrace.influence.attention.head_scores", lambda *args: [evolve(s, score=0.9) for s in real(*args)]
    )
    run = cli(*ARGS, "--json")
    assert run.code == 1
    assert [row["measured"][0]["met"] for row in run.document["known"]] == [False] * 5 + [True] * 2


def test_no_measurement_is_never_as_known():
    each = Known("", "", "", 0.0, 1.0)
    assert (each.met(0.5), each.met(1.5), each.met(None), each.met(math.nan)) == (True, False, False, False)


@pytest.fixture
def beside(monkeypatch):
    """`beside()` installs another backend: the reference in float32, or one whose captures `wrong` changes, under its own name."""
    from llmtrace import plugins
    from llmtrace.reference.options import ReferenceOptions
    from llmtrace.reference.plugin import ReferenceBackend

    def install(wrong=None, opens=lambda source, path: True):
        class Single(ReferenceBackend):
            name = "single"
            opened = []

            @staticmethod
            def probe(source, path):
                return ReferenceBackend.probe(source, path) if opens(source, path) else None

            @staticmethod
            def open(source, options):
                Single.opened.append(source)
                session = ReferenceBackend.open(source, ReferenceOptions(dtype="float32"))
                session.info = evolve(session.info, backend="single")
                if wrong is not None:
                    wrong(session)
                return session

        real = plugins.plugins()
        entry = plugins.BackendEntry("single", "llmtrace-single", "1", "ok", "", Single)
        found = evolve(real, backends={"reference": real.backends["reference"], "single": entry})
        for place in ("llmtrace.plugins.plugins", "llmtrace.opening.plugins"):
            monkeypatch.setattr(place, lambda: found)
        return Single

    return install


def test_a_backend_beside_the_reference_is_measured_against_it(cli, beside, validate):
    beside()
    run = cli("demo", "--json")
    validate("demo", run.document)
    assert run.code == 0
    reference, single = run.document["backends"]
    assert (reference["name"], reference["relative_error"]) == ("reference", None)
    assert (single["name"], single["near_reference"]) == ("single", True)
    assert 1e-9 < single["relative_error"] < 1e-5
    assert [each["backend"] for each in run.document["known"][0]["measured"]] == ["reference", "single"]
    assert "single: 7 of 7 known answers; 55 equations hold; at most " in cli("demo").out


@pytest.mark.parametrize(
    ("opens", "source"),
    [
        (lambda source, path: path is None, DEMO_MODEL),
        (lambda source, path: path is not None, str(embedded("induction"))),
        (lambda source, path: True, DEMO_MODEL),
    ],
    ids=["its name", "its directory", "both"],
)
def test_a_backend_is_beside_it_whether_it_opens_the_model_s_name_or_its_directory(cli, beside, opens, source):
    single = beside(opens=opens)
    run = cli("demo", "--json", "--no-html")
    assert [each["name"] for each in run.document["backends"]] == ["reference", "single"]
    assert single.opened == [source]


def test_a_backend_that_opens_neither_is_not_shown_and_nothing_is_said_of_it(cli, beside):
    beside(opens=lambda source, path: False)
    run = cli("demo", "--json", "--no-html")
    assert [each["name"] for each in run.document["backends"]] == ["reference"]
    assert run.err == ""


def test_a_probe_that_fails_is_one_warning(cli, beside):
    beside(opens=lambda source, path: 1 / 0)
    assert cli("demo", "--no-html").err.count("warning: single is broken") == 1


def test_llama_cpp_is_beside_it_with_a_file_of_its_own(cli):
    pytest.importorskip("xllamacpp")
    pytest.importorskip("llmtrace_llamacpp")
    run = cli("demo", "--backend", "llamacpp", "--json", "--no-html")
    llamacpp = run.document["backends"][1]
    assert (run.code, run.document["verdict"]) == (0, "as_known")
    assert (llamacpp["name"], llamacpp["runtime"], llamacpp["verdict"]) == ("llamacpp", "llama.cpp", "holds")
    assert 1e-9 < llamacpp["relative_error"] < 1e-5
    for row in run.document["known"]:
        ours, theirs = (each["value"] for each in row["measured"])
        assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_backend_that_is_far_from_the_reference_is_not_as_known(cli, beside):
    """It runs another model by that one's equations: every equation holds, and every known answer is met."""

    def scratch(session):
        weights = dict(session.weights)
        weights["blocks.1.mlp.W_out"] = 1.5 * weights["blocks.1.mlp.W_out"]  # it writes where nothing reads
        session.__init__(session.spec, weights, session.stored, "float32", session.info, session.tokenizer)

    beside(scratch)
    run = cli("demo", "--json")
    single = run.document["backends"][1]
    assert all(each["met"] for row in run.document["known"] for each in row["measured"])
    assert (single["verdict"], single["near_reference"]) == ("holds", False)
    assert single["relative_error"] > 1e-4
    assert (run.code, run.document["verdict"]) == (1, "missed")
    assert f"from the reference ({single['relative_error_at']}) ✗" in cli("demo").out


def test_the_reference_is_shown_before_another_runtime_is_opened(cli, beside, monkeypatch):
    said = []
    backend = beside()
    opens = backend.open
    monkeypatch.setattr("click.echo", lambda text="", **rest: said.append(str(text)))

    def open_late(source, options):
        assert any("(it runs by them)" in text for text in said)
        said.append("opened")
        return opens(source, options)

    backend.open = staticmethod(open_late)
    cli("demo", "--no-html")
    assert "opened" in said


def test_a_backend_that_is_not_there_is_an_error_where_it_was_asked_for(cli):
    assert "'nosuch'" in cli("demo", "--backend", "nosuch").error
