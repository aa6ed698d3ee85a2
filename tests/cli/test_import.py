"""`llmtrace import` writes a trace of what another tool recorded, and says what of it is not the model's."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace

MODEL = "builtin:induction"
PROMPT = "c a f e c a"


@pytest.fixture(scope="module")
def recorded():
    """A trace of the embedded model, as arrays."""
    with llmtrace.open(MODEL, backend="reference") as model:
        trace = model.trace(PROMPT)
    return {site: signal.array for site, signal in trace.signals.items()} | {"tokens": np.array(trace.ids)}


@pytest.fixture
def dump(recorded, tmp_path):
    """`dump(…)`: the same in a file, with some of it changed."""

    def write(without=(), **changed):
        kept = {name: array for name, array in (recorded | changed).items() if name not in without}
        np.savez(tmp_path / "dump.npz", **kept)
        return tmp_path / "dump.npz"

    return write


def test_a_sound_dump_becomes_a_trace_that_the_other_commands_take(cli, dump, validate):
    run = cli("import", dump(), "a.trace", "--model", MODEL, "--json")
    validate("import", run.document)
    assert (run.code, run.document["verdict"], run.document["file"]) == (0, "holds", "a.trace")
    assert [token["text"].strip() for token in run.document["tokens"]][1:] == PROMPT.split()
    assert run.document["inherited"] == run.document["left_out"] == []
    assert {site["site"] for site in run.document["sites"]} == {signal["site"] for signal in run.document["signals"]}
    assert cli("verify", "a.trace").code == 0
    assert cli("compare", f"reference:{MODEL}", "a.trace").code == 0


def test_a_signal_that_is_not_the_models_is_bad_news_with_the_reason(cli, dump, recorded, validate):
    path = dump(**{"blocks.0.attn.scores": recorded["blocks.0.attn.scores"] * 2})
    run = cli("import", path, "a.trace", "--model", MODEL, "--json")
    validate("import", run.document)
    assert (run.code, run.document["verdict"]) == (1, "violated")
    bad = next(site for site in run.document["sites"] if site["status"] == "violated")
    assert bad["site"] == "blocks.0.attn.scores"
    assert bad["reason"] == "it is 2 times the model's: say so in a map (factor = 0.5)"
    said = cli("import", path, "a.trace", "--model", MODEL)
    assert said.code == 1
    assert "Does not hold: blocks.0.attn.scores: it is 2 times the model's" in said.out
    assert ", first blocks.0.attn.scores: it is 2 times" in said.out
    assert cli("verify", "a.trace").code == 1


def test_what_cannot_be_checked_is_said(cli, dump, recorded, validate):
    path = dump(without=[name for name in recorded if name not in ("tokens", "blocks.1.attn.z")])
    run = cli("import", path, "a.trace", "--model", MODEL, "--json")
    validate("import", run.document)
    assert (run.code, run.document["verdict"]) == (0, None)
    assert "Nothing could be checked" in run.document["unchecked"]
    said = cli("import", path, "a.trace", "--model", MODEL).out
    assert said.startswith("imported 1 signal of ")
    assert "Nothing could be checked" in said


def test_names_are_left_out_where_that_is_asked_for(cli, dump, validate):
    path = dump(mine=np.zeros(3))
    assert "mine is no site" in cli("import", path, "a.trace", "--model", MODEL).error
    run = cli("import", path, "a.trace", "--model", MODEL, "--leave-out", "--json")
    validate("import", run.document)
    assert run.document["left_out"] == [{"name": "mine", "reason": "is no site"}]
    assert "Left out: mine." in cli("import", path, "a.trace", "--model", MODEL, "--leave-out").out


def test_a_map_a_prompt_and_a_sequence(cli, recorded, tmp_path):
    np.savez(
        tmp_path / "d.npz",
        p=np.stack([recorded["blocks.1.attn.pattern"]] * 2),
        v=recorded["blocks.1.attn.v"].reshape(-1, 64),
    )
    (tmp_path / "m.toml").write_text(
        'p = "blocks.1.attn.pattern"\nv = { site = "blocks.1.attn.v", axes = "token (kv_head d_value)" }\n'
    )
    options = ["--model", MODEL, "--map", "m.toml", "--sequence", "1"]
    for prompt in (["--prompt", PROMPT], ["--tokens", ",".join(map(str, recorded["tokens"]))]):
        assert cli("import", "d.npz", "a.trace", *options, *prompt).code == 0
        assert (
            llmtrace.load(tmp_path / "a.trace")["blocks.1.attn.pattern"].array.tobytes()
            == recorded["blocks.1.attn.pattern"].tobytes()
        )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["dump.npz", "a.trace"], "Missing option '--model'"),
        (["dump.npz", "a.trace", "--model", "./nowhere"], "no file or directory './nowhere'"),
        (["nowhere", "a.trace", "--model", MODEL], "no file or directory nowhere"),
        (["nowhere", "no/such/a.trace", "--model", MODEL], "no directory"),
        (["dump.npz", "a.trace", "--model", MODEL, "--map", "none.toml"], r"no file none\.toml"),
        (["dump.npz", "a.trace", "--model", "./nowhere", "--map", "none.toml"], r"no file none\.toml"),
        (["dump.npz", "a.trace", "--model", MODEL, "--prompt", "a", "--tokens", "1"], "Give one prompt"),
        (["dump.npz", "a.trace", "--model", MODEL, "--tokens", "1,2"], "they must be the same"),
        (["dump.npz", "a.trace", "--model", MODEL, "--prompt", "zzz"], "zzz"),
        (["dump.npz", "a.trace", "--model", "a.trace"], r"There is no file a\.trace"),
    ],
)
def test_what_could_not_be_done_is_one_line_and_leaves_no_file(cli, dump, tmp_path, args, words):
    import re

    dump()
    assert re.search(words, cli("import", *args).error)
    assert not (tmp_path / "a.trace").exists()


def test_one_is_one(cli, tmp_path):
    with llmtrace.open(MODEL, backend="reference") as model:
        np.savez(tmp_path / "one.npz", embed=model.trace([3])["embed"].array)
    run = cli("import", "one.npz", "a.trace", "--model", MODEL, "--tokens", "3")
    assert run.out.startswith("imported 1 signal of 1 token from one.npz\n")
    assert "\nholds: the only judged site agrees with its equation within rounding (" in run.out
    traced = cli("trace", MODEL, "--tokens", "3", "--capture", "embed").out
    assert traced.startswith("1 token: ")
    assert "\n1 signal, " in traced


def test_a_name_in_a_dump_cannot_move_the_cursor(cli, dump):
    path = dump(**{"x\x1b[2J": np.zeros(3)})
    assert "\x1b" not in cli("import", path, "a.trace", "--model", MODEL).error
    assert "\x1b" not in cli("import", path, "a.trace", "--model", MODEL, "--leave-out").out


def test_what_is_imported_is_shown_in_one_line(dump, recorded):
    path = dump(**{"blocks.0.attn.scores": recorded["blocks.0.attn.scores"] * 2})
    found = llmtrace.import_dump(path, MODEL)
    count = len(recorded) - 1
    judged = sum(each.status in ("holds", "violated") for each in found.verdicts.sites)
    assert repr(found) == f"<Imported {path}: {count} signals of 7 tokens, 1 of {judged} judged violated>"
