"""`llmtrace compare --budget`: what is shown of it, its document, how a text is given, and what is refused."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from safetensors.numpy import load_file, save_file

from llmtrace.cli.compared_budget import read_text, show_budget
from llmtrace.comparison.budget import Budget, Distance, Swap
from llmtrace.data import embedded

SAME = "reference:builtin:induction"
TOKENS = ("--tokens", "0,1,6,5,2,1,6", "--tokens", "0,3,4,3,4")
TEXT = "a f e b o d c a f e b o d c a b c a b c"
"""With the token in front 21 tokens."""


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    """The hand-built model, the first layer's q off by a little, the head by a lot."""
    directory = tmp_path_factory.mktemp("other") / "model"
    directory.mkdir()
    for file in embedded("induction").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    tensors = load_file(directory / "model.safetensors")
    random = np.random.default_rng(0)
    for name, size in (("model.layers.0.self_attn.q_proj.weight", 1e-3), ("lm_head.weight", 0.5)):
        tensors[name] = (tensors[name] + size * random.normal(size=tensors[name].shape)).astype(tensors[name].dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return f"reference:{directory}"


def test_the_sentence_comes_first_then_the_weights_by_what_they_cost(cli, other):
    run = cli("compare", SAME, other, *TOKENS, "--budget")
    assert run.code == 1  # these weights are no format's
    budget = run.out[run.out.index("Budget: ") :]
    assert budget.startswith(
        "Budget: 1 of 2 weights that differ costs 100% of the KL: unembed.W_U; all at once come to "
    )
    head, query, every, candidate = (
        budget.index(f"\n{word} ") for word in ("unembed.W_U", "blocks.0.attn.W_Q", "all at once", "the candidate")
    )
    assert head < query < every < candidate
    assert "mean of 12 predictions on 2 prompts" in budget
    assert "Perplexity" not in budget


def test_the_document_is_what_its_schema_says(cli, validate, other):
    document = cli("compare", SAME, other, *TOKENS, "--budget", "--json").document
    validate("compare", document)
    budget = document["candidates"][0]["budget"]
    assert [swap["names"] for swap in budget["swaps"]] == [["unembed.W_U"], ["blocks.0.attn.W_Q"]]
    assert budget["excess"] == pytest.approx(budget["together"]["kl"] - budget["total"])
    assert budget["rest"] == pytest.approx(budget["candidate"]["kl"] - budget["together"]["kl"])
    assert budget["perplexity"] is None
    plain = cli("compare", SAME, other, *TOKENS, "--json").document
    validate("compare", plain)
    assert plain["candidates"][0]["budget"] is None


@pytest.mark.parametrize("given", ["a file", "standard input"])
def test_a_text_is_read_in_chunks(cli, validate, other, tmp_path, given):
    file = tmp_path / "text.txt"
    file.write_text(TEXT + "\n", encoding="utf-8")
    options = ("--budget", "--context", "8", "--text")
    if given == "a file":
        run = cli("compare", SAME, other, *TOKENS, *options, str(file), "--json")
    else:
        run = cli("compare", SAME, other, *TOKENS, *options, "-", "--json", input=TEXT)
    validate("compare", run.document)
    budget = run.document["candidates"][0]["budget"]
    assert (budget["pieces"], budget["context"], budget["predictions"]) == (2, 8, 6)
    assert budget["perplexity"] > 1
    assert budget["swaps"][0]["distance"]["log_ppl_ratio"] is not None


def test_the_line_feed_at_the_end_of_a_text_is_no_part_of_it(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("a b\n\n", encoding="utf-8")
    assert read_text(str(file)) == "a b\n"


def test_perplexities_are_shown_of_a_text(cli, other, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    run = cli("compare", SAME, other, *TOKENS, "--budget", "--text", str(file), "--context", "8", "--chunks", "1")
    assert "ln PPL ratio" in run.out
    assert "mean of 3 predictions on 1 chunk of 8 tokens" in run.out
    assert "Perplexity of the reference: " in run.out


def at(kl, error=None):
    return Distance(kl, error, 0.5)


def handmade(*costs, together, **fields):
    """A budget of weights of 300 KiB each that cost so much."""
    total, so_far = sum(costs), accumulate(costs)
    swaps = [
        Swap((f"w{place}",), "Q8_0", 1, 300 * 1024, 0.25, at(cost, cost / 8), cost / total, seen / total)
        for place, (cost, seen) in enumerate(zip(costs, so_far, strict=True))
    ]
    budget = Budget("this and that", 12, 2, None, None, tuple(swaps), total, at(together), at(0.75), at(0.0625))
    return evolve(budget, **fields)


def shown(capsys, budget, every=False):
    show_budget(budget, every)
    return capsys.readouterr().out


def cells(out, name):
    """A row of the table, without what frames it."""
    (row,) = [each for each in out.splitlines() if each.strip().startswith(name)]
    return row.replace("│", " ").split()[len(name.split()) :]


def test_every_number_stands_under_its_heading(capsys):
    """1.5 nats for 300 KiB are 5.12 for a MiB; three quarters of 2 nats."""
    out = shown(capsys, handmade(1.5, 0.5, together=1.0))
    heads = next(each for each in out.splitlines() if "same top" in each)
    assert " ".join(heads.split()) == "weight stored KiB error KL in nats ± a MiB share so far same top"
    assert cells(out, "w0") == ["Q8_0", "300", "2.5e-01", "1.5e+00", "1.9e-01", "5.1e+00", "75.0%", "75.0%", "50.0%"]
    assert cells(out, "w1") == ["Q8_0", "300", "2.5e-01", "5.0e-01", "6.2e-02", "1.7e+00", "25.0%", "100.0%", "50.0%"]
    assert [cells(out, name) for name in ("all at once", "the candidate", "its runtime alone")] == [
        ["1.0e+00", "50.0%"], ["7.5e-01", "50.0%"], ["6.2e-02", "50.0%"],
    ]  # fmt: skip
    assert "The candidate's KL less that of all its weights: -0.25 nats; its runtime alone" in out
    assert "with its weights: 0.0625 nats." in out


@pytest.mark.parametrize(
    ("together", "words"),
    [
        (3.0, "All at once cost 1 nats (50%) more than the sum"),
        (1.5, "All at once cost 0.5 nats (25%) less than the sum"),
        (2.0, None),
        (math.inf, None),
    ],
)
def test_by_how_much_costs_do_not_add_up(capsys, together, words):
    out = shown(capsys, handmade(1.5, 0.5, together=together))
    assert (words in out) if words else ("do not add up" not in out)


def test_the_first_fifteen_are_listed_or_all(capsys):
    for count, words in ((15, None), (16, "1 more weight costs less"), (17, "2 more weights cost less")):
        budget = handmade(*[1.0] * count, together=1.0)
        out = shown(capsys, budget)
        assert "w14 " in out and "w15 " not in out
        assert (words in out) if words else (" cost less" not in out)
        assert shown(capsys, budget, every=True).count("Q8_0") == count


def test_one_is_not_several(capsys):
    out = shown(capsys, handmade(1.0, together=1.0, predictions=1, pieces=1))
    assert "KL: the reference first, mean of 1 prediction on 1 prompt.\n" in out
    out = shown(capsys, handmade(1.0, together=1.0, predictions=3000, pieces=2, context=2048))
    assert "mean of 3,000 predictions on 2 chunks of 2,048 tokens; ± its standard error over these." in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--text", "TEXT"), "give --budget too"),
        (("--budget", "--context", "8"), "give one with --text"),
        (("--budget", "--weights-only"), "give one of the two"),
        (("--budget", "--text", "nowhere.txt"), "nowhere.txt"),
        (("--budget", "--text", "TEXT", "--context", "3"), "3"),
        (("--budget", "--text", "TEXT", "--context", "64"), "fills no chunk of 64"),
        (("--budget", "--text", "BYTES"), "not valid UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_exits_with_2_and_one_line(cli, other, tmp_path, options, says):
    (tmp_path / "TEXT").write_text(TEXT, encoding="utf-8")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe\xff")
    named = [str(tmp_path / each) if each in ("TEXT", "BYTES") else each for each in options]
    run = cli("compare", SAME, other, *([] if "--weights-only" in options else TOKENS), *named)
    assert run.code == 2
    assert says in run.err
    assert "Traceback" not in run.err


def test_a_saved_trace_is_no_reference_of_a_budget(cli, other, tmp_path):
    trace = Path(tmp_path, "one.trace")
    assert cli("trace", SAME, "--tokens", "0,1,6", "--save", str(trace)).code == 0
    run = cli("compare", str(trace), other, "--budget")
    assert run.code == 2
    assert "name the model itself" in run.err
