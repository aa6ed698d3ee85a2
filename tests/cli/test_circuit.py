"""`llmtrace circuit motifs`: what it prints, as its schema says, and how it refuses."""

import pytest

MODEL = "builtin:induction"
OWN = '[motif.two-back]\nroles = { head = "head" }\nwhere = { head = "pattern[q, q - 2]" }\nexpect = { head = ">= 0.5" }\n'


@pytest.fixture
def motifs(cli):
    return lambda *args: cli("circuit", "motifs", MODEL, "--backend", "reference", *args)


def heads(run):
    return {each["name"]: [(head["layer"], head["head"]) for head in each["heads"]] for each in run.document["motifs"]}


def test_its_document_is_what_its_schema_says(motifs, validate):
    run = motifs("--json", "--check")
    assert run.code == 0
    validate("circuit-motifs", run.document)
    assert heads(run)["previous-token"] == [(0, 0)]
    assert heads(run)["induction"] == [(0, 0), (1, 0)]


def test_undefined_numbers_are_null_as_the_schema_says(motifs, validate, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a b c d\n", encoding="utf-8")
    run = motifs("--json", "--prompts", file)
    validate("circuit-motifs", run.document)
    assert run.document["prompts"]["about"] == "1 given prompt"
    (induction,) = [each for each in run.document["motifs"] if each["name"] == "induction"]
    assert induction["false_positive_rate"] is None
    assert induction["scores"]["ind"] == [[None, None], [None, None]]


def test_people_see_heads_with_intervals_chance_and_evidence(motifs):
    run = motifs("--check")
    assert "16 prompts of 15 random tokens, repeated once after <bos> (seed 0)" in run.out
    assert "checked on 8 prompts" in run.out
    (line,) = [line for line in run.out.splitlines() if line.startswith("ind ")]
    assert "a1.h0 " in line
    assert "a0.h0 (kappa 2.0)" in line
    assert line.rstrip().endswith("causal")
    assert "-0.00" not in run.out
    assert "false positives in shuffled rows 0.0%" in run.out


def test_one_motif_may_be_named(motifs):
    assert list(heads(motifs("--json", "--motif", "self"))) == ["self"]


def test_a_file_of_ones_own_is_looked_for_alone_or_beside_others(motifs, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN, encoding="utf-8")
    assert list(heads(motifs("--json", "--motif-file", file))) == ["two-back"]
    both = motifs("--json", "--motif-file", file, "--motif", "self", "--motif", "two-back")
    assert list(heads(both)) == ["self", "two-back"]
    beside = motifs("--json", "--motif-file", file, "--motif", "self", "--motif", "self")
    assert [each["name"] for each in beside.document["motifs"]] == ["self", "two-back"]
    assert "no head matches; the nearest, as head, is a" in motifs("--motif-file", file).out


def test_a_seed_is_a_seed(motifs):
    one, two, other = (motifs("--json", "--seed", seed) for seed in ("3", "3", "4"))
    assert one.out == two.out
    assert one.document["prompts"]["prompts"] != other.document["prompts"]["prompts"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--motif", "inductoin"], "Did you mean induction"),
        (["--seed", "-1"], "-1"),
        (["--prompts", "none.txt"], "none.txt"),
        (["--motif-file", "none.toml"], "none.toml"),
        (["--motif", "induction", "--check", "--prompts", "few.txt"], "at least 6 prompts"),
        (["--motif-file", "bad.toml"], "bad.toml: motif.two-back"),
    ],
)
def test_what_cannot_be_done_is_one_line(motifs, args, why, tmp_path):
    (tmp_path / "few.txt").write_text("a b a b\n", encoding="utf-8")
    (tmp_path / "bad.toml").write_text(OWN.replace("q - 2", "q * 2"), encoding="utf-8")
    assert why in motifs(*args).error


def test_the_group_lists_its_questions_and_refuses_others(cli):
    run = cli("circuit", "--help")
    assert run.code == 0
    assert "motifs" in run.out
    alone = cli("circuit")
    assert (alone.code, alone.out) == (0, run.out)
    assert "No such command" in cli("circuit", "motif").error
