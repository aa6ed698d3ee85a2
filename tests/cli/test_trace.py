"""`llmtrace trace` records what it is asked for, says what that is, and saves it."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.cli.parameters import Indices, Size

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


def test_its_document_is_what_the_schema_and_the_trace_say(cli, validate):
    document = cli("trace", MODEL, PROMPT, "--json").document
    validate("trace", document)
    with llmtrace.open(MODEL) as model:
        trace = model.trace(PROMPT)
    assert [(token["id"], token["text"]) for token in document["tokens"]] == [(t.id, t.text) for t in trace.tokens]
    assert [signal["site"] for signal in document["signals"]] == list(trace)
    for signal in document["signals"]:
        found = trace[signal["site"]]
        assert (signal["axes"], signal["shape"]) == (list(found.axes), list(found.array.shape))
        assert (signal["dtype"], signal["bytes"]) == (str(found.array.dtype), found.array.nbytes)
        assert signal["provenance"] == "captured"
    assert document["bytes"] == sum(array.array.nbytes for array in trace.signals.values())
    assert document["file"] is None


@pytest.mark.parametrize("preset", ["exact", "shipped"])
def test_its_document_says_which_model_was_run_and_how(cli, checkpoint, preset):
    (checkpoint / "tokenizer.json").unlink()
    args = [checkpoint, "--tokens", "0,3,1", "--backend", "reference", "--preset", preset]
    document = cli("trace", *args, "--json").document
    assert (document["model"], document["backend"], document["preset"]) == (str(checkpoint), "reference", preset)
    assert document["notes"] == ["There is no tokenizer.json: prompts are token ids."]


def test_capture_heads_channels_and_tokens_narrow_it(cli):
    args = [
        "--capture",
        "blocks.*.attn.pattern",
        "--capture",
        "blocks.1.attn.z",
        "--heads",
        "1",
        "--token-index",
        "-1,0..2",
    ]
    shapes = {s["site"]: s["shape"] for s in cli("trace", MODEL, PROMPT, *args, "--json").document["signals"]}
    assert shapes == {
        "blocks.0.attn.pattern": [1, 4, 11],
        "blocks.1.attn.z": [4, 1, 32],
        "blocks.1.attn.pattern": [1, 4, 11],
    }
    args = ["--capture", "blocks.0.attn.z", "--channels", "4..6"]
    assert cli("trace", MODEL, PROMPT, *args, "--json").document["signals"][0]["shape"] == [11, 2, 3]


def test_token_ids_and_a_file_stand_in_for_the_prompt(cli, tmp_path):
    expected = cli("trace", MODEL, PROMPT, "--json").document["tokens"]
    ids = ",".join(str(token["id"]) for token in expected)
    (tmp_path / "prompt.txt").write_text(PROMPT + "\n", encoding="utf-8")
    assert cli("trace", MODEL, "--tokens", ids, "--json").document["tokens"] == expected
    assert cli("trace", MODEL, "--prompt-file", "prompt.txt", "--json").document["tokens"] == expected
    assert cli("trace", MODEL, "--prompt-file", "-", "--json", input=PROMPT).document["tokens"] == expected


def test_a_saved_trace_holds_the_same_numbers(cli, tmp_path):
    run = cli("trace", MODEL, PROMPT, "--save", "x.trace", "--json")
    assert run.document["file"] == "x.trace"
    with llmtrace.open(MODEL) as model:
        trace = model.trace(PROMPT)
    loaded = llmtrace.load(tmp_path / "x.trace")
    assert list(loaded) == list(trace)
    for site in trace:
        np.testing.assert_array_equal(loaded[site].array, trace[site].array)


def test_the_tables_name_every_signal(cli):
    assert "blocks.{0..1}.attn.pattern" in cli("trace", MODEL, PROMPT).out
    every = cli("trace", MODEL, PROMPT, "--all").out
    with llmtrace.open(MODEL) as model:
        assert all(f"\n{site} " in every for site in model.trace(PROMPT))


def test_over_the_limit_is_refused_with_the_number_before_the_run(cli, monkeypatch):
    with llmtrace.open(MODEL) as model:
        needed = model.plan(model.tokens(PROMPT)).bytes
    assert f"{needed:,} bytes" in cli("trace", MODEL, PROMPT, "--max-bytes", needed - 1).error
    assert cli("trace", MODEL, PROMPT, "--max-bytes", needed, "-q").code == 0
    assert cli("trace", MODEL, PROMPT, "--max-bytes", "none", "-q").code == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2GiB", 2 * 2**30),
        ("2 gib", 2 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5k", 1536),
        ("7", 7),
        ("7B", 7),
        ("4G", 4 * 2**30),
        ("none", -1),
    ],
)
def test_sizes_are_read_as_people_write_them(text, value):
    assert Size().convert(text, None, None) == value


@pytest.mark.parametrize(
    ("text", "value"), [("5,17,3", (5, 17, 3)), ("-1", (-1,)), ("0, 3..5", (0, 3, 4, 5)), ("7..7", (7,))]
)
def test_lists_of_numbers_are_read_with_their_ranges(text, value):
    assert Indices().convert(text, None, None) == value


def test_options_reach_the_backend(cli):
    document = cli("trace", MODEL, PROMPT, "-o", "dtype=float32", "--json").document
    assert {signal["dtype"] for signal in document["signals"]} == {"float32"}
    assert cli("trace", MODEL, PROMPT, "--dtype", "float32", "--json").document["signals"] == document["signals"]


def test_a_prefix_or_an_option_names_the_backend(cli, checkpoint):
    for args in ([f"reference:{checkpoint}"], [checkpoint, "--backend", "reference"]):
        run = cli("trace", *args, PROMPT, "--json")
        assert run.document["backend"] == "reference"
        assert "as asked for" in run.err
