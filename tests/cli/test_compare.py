"""`llmtrace compare`: the verdict and exit code, what is shown, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.data import embedded
from llmtrace.errors import TraceFileError

SAME = "reference:builtin:induction"
TOKENS = "0,1,6,5,2,1,6"
"""`<bos> a f e b a f`"""


@pytest.fixture
def other(tmp_path):
    """A copy of the hand-built model, changed: `other(config, weights)`."""

    def make(config=None, weights=None):
        directory = tmp_path / "other"
        directory.mkdir(exist_ok=True)
        for file in embedded("induction").iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        if config is not None:
            document = json.loads((directory / "config.json").read_text())
            config(document)
            (directory / "config.json").write_text(json.dumps(document))
        if weights is not None:
            file = directory / "model.safetensors"
            tensors = load_file(file)
            weights(tensors)
            save_file(tensors, file, metadata={"format": "pt"})
        return f"reference:{directory}"

    return make


def test_a_model_agrees_with_itself(cli):
    run = cli("compare", SAME, SAME, "--tokens", TOKENS)
    assert run.code == 0, run.err
    assert run.out.startswith("agrees: ")


def test_the_json_is_what_its_schema_says(cli, other, validate):
    changed = other(config=lambda c: c.update(rms_norm_eps=0.3))
    run = cli("compare", SAME, changed, "--tokens", TOKENS, "--json")
    assert run.code == 1
    validate("compare", run.document)
    first = run.document["candidates"][0]["first_divergence"]
    assert run.document["verdict"] == "diverges"
    assert first["site"] == "blocks.0.ln1.scale"
    assert "0.3 instead of" in first["cause"]["words"]


def test_the_verdict_comes_first_and_names_the_weight(cli, other):
    def swap(tensors):
        name = next(name for name in tensors if "layers.1" in name and "v_proj" in name)
        tensors[name] = np.ascontiguousarray(tensors[name][::-1])

    run = cli("compare", SAME, other(weights=swap), "--tokens", TOKENS)
    assert run.code == 1
    headline = run.out.splitlines()[0]
    assert headline.startswith("diverges at blocks.1.attn.v: blocks.1.attn.W_V: ")
    assert "permuted" in headline


def test_weights_alone_are_compared_without_running(cli, other, validate):
    def transpose(tensors):
        name = next(name for name in tensors if "layers.0" in name and "o_proj" in name)
        tensors[name] = np.ascontiguousarray(tensors[name].T)

    run = cli("compare", SAME, other(weights=transpose), "--weights-only", "--json")
    assert run.code == 1
    validate("compare", run.document)
    (bad,) = [tensor for tensor in run.document["candidates"][0]["tensors"] if not tensor["explained"]]
    assert bad["name"] == "blocks.0.attn.W_O"
    assert cli("compare", SAME, SAME, "--weights-only").code == 0


def test_several_candidates_have_a_verdict_each(cli, other):
    changed = other(config=lambda c: c.update(hidden_act="relu"))
    run = cli("compare", SAME, SAME, changed, "--tokens", TOKENS)
    assert run.code == 1
    same, different = run.out.splitlines()[:2]
    assert same.startswith("builtin:induction: agrees")
    assert "diverges at blocks.0.mlp.post: act relu instead of silu" in different


def test_traces_of_one_prompt_are_compared_without_the_models(cli):
    llmtrace.open(SAME).trace([0, 1, 6, 5, 2, 1, 6]).save("one.trace")
    assert cli("compare", "one.trace", "one.trace").code == 0
    assert cli("compare", SAME, "one.trace").code == 0
    assert cli("compare", "one.trace", SAME).code == 0


def test_traces_of_other_tokens_are_refused(cli):
    model = llmtrace.open(SAME)
    model.trace([0, 1, 6]).save("one.trace")
    model.trace([0, 1, 7]).save("two.trace")
    assert "different tokens" in cli("compare", "one.trace", "two.trace").error
    assert "has its own prompt" in cli("compare", "one.trace", "one.trace", "--tokens", "0,1,6").error


def test_predictions_that_must_stay_can_be_asked_for(cli, other):
    changed = other(weights=lambda tensors: tensors.update({"lm_head.weight": -tensors["lm_head.weight"]}))
    assert cli("compare", SAME, SAME, "--tokens", TOKENS, "--least-same-top", "1").code == 0
    run = cli("compare", SAME, changed, "--tokens", TOKENS, "--least-same-top", "1")
    assert run.code == 1
    assert "; besides, " in run.out.splitlines()[0] and "and 100.0% was asked for" in run.out.splitlines()[0]
    assert not run.err.count("asked for")


@pytest.mark.parametrize("share", ["nan", "-0.5", "95", "most"])
def test_a_share_that_is_none_is_refused(cli, share):
    assert "give a number from 0 to 1" in cli("compare", SAME, SAME, "--least-same-top", share).error


def test_a_gate_that_fails_is_in_the_first_line_and_is_no_pass_in_json(cli, monkeypatch, validate):
    from llmtrace.comparison import comparing

    def dropping(*sides, **settings):
        found = compare(*sides, **settings)
        return evolve(
            found,
            candidates=[evolve(each, outputs=(evolve(each.outputs[0], same_top=0.5),)) for each in found.candidates],
        )

    compare = comparing.compare
    monkeypatch.setattr(comparing, "compare", dropping)
    run = cli("compare", SAME, SAME, "--tokens", TOKENS, "--least-same-top", "0.9")
    assert run.code == 1
    assert run.out.startswith(
        "falls short: 50.0% of the predictions of prompt 1 stay the same, and 90.0% was asked for; agrees: "
    )
    document = cli("compare", SAME, SAME, "--tokens", TOKENS, "--least-same-top", "0.9", "--json").document
    validate("compare", document)
    assert document["passed"] is document["candidates"][0]["passed"] is False
    assert document["candidates"][0]["shortfall"].startswith("50.0%")
    assert (
        cli("compare", SAME, SAME, "--tokens", TOKENS, "--least-same-top", "0.4", "--json").document["passed"] is True
    )


def test_prompts_come_from_a_file(cli, tmp_path):
    (tmp_path / "prompts").write_text('a f e b\n\n"a b"\n[0, 1, 6]\n')
    run = cli("compare", SAME, SAME, "--prompts", "prompts", "--json")
    prompts = run.document["prompts"]
    assert [(each["name"], each["text"]) for each in prompts] == [("1", "a f e b"), ("2", "a b"), ("3", "0 1 6")]
    assert [token["text"] for token in prompts[0]["tokens"]] == ["<bos>", "a", "f", "e", "b"]
    (tmp_path / "prompts").write_text("[0, true]\n")
    assert "prompts:1: '[0, true]' is neither" in cli("compare", SAME, SAME, "--prompts", "prompts").error


def test_a_prompt_that_cannot_be_run_is_told_by_where_it_stands(cli, tmp_path):
    (tmp_path / "prompts").write_text("a f\n\n[0, 99]\n")
    run = cli("compare", SAME, SAME, "--prompts", "prompts")
    assert run.error.startswith("error: prompts:3: Token id 99 is outside")
    assert "Prompt" not in run.error
    assert "error: --tokens: Token id 99" in cli("compare", SAME, SAME, "--prompt", "a f", "--tokens", "99").error


def test_a_text_that_was_read_and_not_run_is_shown_and_is_what_the_schema_says(cli, other, tmp_path, validate):
    changed = other()
    words = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(words | {"post_processor": None}))
    run = cli("compare", SAME, changed)
    assert run.code == 1
    assert run.out.startswith("diverges at the tokens: '<bos>' is not put in front (token 0, byte 0 of the text)")
    assert any(line.startswith("not run: '") for line in run.out.splitlines())
    document = cli("compare", SAME, changed, "--json").document
    validate("compare", document)
    assert document["candidates"][0]["tokens"][0]["prompt"] is None
    (tmp_path / "other" / "tokenizer.json").unlink()
    document = cli("compare", SAME, changed, "--json").document
    validate("compare", document)
    assert document["candidates"][0]["tokens_not_compared"] == "the candidate has no tokenizer"


def test_a_limit_is_refused_by_what_this_command_has(cli):
    error = cli("compare", SAME, SAME, "--tokens", TOKENS, "--max-bytes", "0").error
    assert "Compare on shorter prompts, or raise the limit" in error and "heads=" not in error


def test_a_wrong_epsilon_is_shown_by_weights_alone_as_what_the_file_says(cli, other):
    changed = other(config=lambda c: c.update(rms_norm_eps=0.3))
    run = cli("compare", SAME, changed, "--weights-only")
    assert run.code == 0
    assert "agrees: 21 tensors; but its file says " in run.out.splitlines()[0]
    assert any(line.split()[:3] == ["ln_final.eps", "1e-05", "0.3"] for line in run.out.splitlines())


def test_weights_alone_list_what_is_not_explained_and_each_kind_once(cli, other):
    def transpose(tensors):
        name = next(name for name in tensors if "layers.0" in name and "o_proj" in name)
        tensors[name] = np.ascontiguousarray(tensors[name].T)

    changed = other(weights=transpose)
    lines = [
        line.split()[0] for line in cli("compare", SAME, changed, "--weights-only").out.splitlines() if line.strip()
    ]
    assert lines.count("blocks.0.attn.W_O") == 1 and lines.count("blocks.L.attn.W_O") == 1
    assert not any(line.startswith("blocks.1.") for line in lines)
    every = cli("compare", SAME, changed, "--weights-only", "--all").out
    assert all(f"blocks.{layer}.attn.W_{name}" in every for layer in range(2) for name in "QKVO")


def test_two_candidates_of_one_name_are_told_apart_and_stand_apart(cli):
    pytest.importorskip("llmtrace_onnxruntime")
    pytest.importorskip("llmtrace_llamacpp")
    run = cli("compare", SAME, "onnxruntime:builtin:induction", "llamacpp:builtin:induction", "--tokens", TOKENS)
    lines = run.out.splitlines()
    assert lines[0].startswith("onnxruntime:builtin:induction: ") and lines[1].startswith(
        "llamacpp:builtin:induction: "
    )
    (second,) = [at for at, line in enumerate(lines) if line.startswith("candidate  llamacpp:")]
    assert lines[second - 1] == ""
    assert "--preset exact (" in run.out and "dtype" not in run.out


def test_node_data_is_what_model_explorer_reads(cli, other, tmp_path):
    changed = other(config=lambda c: c.update(hidden_act="relu"))
    run = cli("compare", SAME, changed, "--tokens", TOKENS, "--node-data", "nodes.json")
    assert run.code == 1
    data = json.loads((tmp_path / "nodes.json").read_text())
    assert set(data) == {"name", "results", "thresholds"}
    assert data["results"]["blocks.0.mlp.post"]["value"] > 1 >= data["results"]["blocks.0.mlp.pre"]["value"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((SAME,), "Missing argument 'CANDIDATE...'"),
        ((SAME, "nowhere.gguf"), "nowhere.gguf"),
        ((SAME, SAME, "--tokens", "0,99"), "99"),
        ((SAME, SAME, "--weights-only", "--tokens", "0"), "runs nothing"),
        ((SAME, SAME, SAME, "--node-data", "x"), "one candidate"),
        ((SAME, SAME, "--prompts", "empty"), "no prompt"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli, tmp_path, arguments, says):
    (tmp_path / "empty").write_text("\n")
    assert says in cli("compare", *arguments).error


def test_prompts_are_told_one_by_one_with_what_they_come_to(cli, other):
    changed = other(config=lambda c: c.update(rms_norm_eps=0.3))
    run = cli("compare", SAME, changed, "--prompt", "a f e b", "--prompt", "a b f")
    document = cli("compare", SAME, changed, "--prompt", "a f e b", "--prompt", "a b f", "--json").document
    (candidate,) = document["candidates"]
    lines = run.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("prompt "))
    for line, outputs, errors in zip(lines[at + 1 :], candidate["outputs"], candidate["by_prompt"], strict=False):
        name, count, mean, worst, same, shift, site, times, inherited = line.split()
        assert (name, count) == (str(outputs["prompt"] + 1), str(outputs["tokens"]))
        assert [float(mean), float(worst)] == pytest.approx([outputs["mean_kld"], outputs["worst_kld"]], rel=1e-2)
        assert [same, shift] == [f"{outputs['same_top']:.1%}", f"{outputs['largest_shift']:.2%}"]
        assert site == errors["site"]
        assert [float(times), float(inherited)] == pytest.approx([errors["times"], errors["inherited_error"]], rel=6e-2)
    spread = {each["quantity"]: each for each in candidate["spread"]}
    told = {line.rsplit(None, 6)[0]: line.split()[-6:] for line in lines[at + 3 : at + 8]}
    assert list(told) == ["mean of 2", "deviation", "standard error", "least", "most"]
    for title, key in zip(told, ("mean", "deviation", "standard_error", "least", "most"), strict=True):
        assert float(told[title][0]) == pytest.approx(spread["mean_kld"][key], rel=1e-2)
        assert told[title][2] == f"{spread['same_top'][key]:.1%}"
        assert float(told[title][5]) == pytest.approx(spread["inherited_error"][key], rel=6e-2)


def test_a_single_prompt_has_no_spread_and_a_single_candidate_no_matrix(cli):
    out = cli("compare", SAME, SAME, "--prompt", "a f e b").out
    assert "standard error" not in out
    assert "mean KLD, same top" not in out


def test_several_candidates_stand_beside_each_other_on_every_prompt(cli, other):
    changed = other(config=lambda c: c.update(rms_norm_eps=0.3))
    arguments = ("compare", SAME, SAME, changed, "--prompt", "a f e b", "--prompt", "a b f")
    lines, document = cli(*arguments).out.splitlines(), cli(*arguments, "--json").document
    at = next(number for number, line in enumerate(lines) if line.startswith("mean KLD, same top"))
    assert lines[at].split()[4:] == ["1", "2", "all"]
    for line, candidate in zip(lines[at + 1 :], document["candidates"], strict=False):
        cells = line.replace(",", "").split()[1:]
        for kld, same, outputs in zip(cells[0:4:2], cells[1:4:2], candidate["outputs"], strict=True):
            assert float(kld) == pytest.approx(outputs["mean_kld"], rel=1e-2)
            assert same == f"{outputs['same_top']:.1%}"
        spread = {each["quantity"]: each for each in candidate["spread"]}
        assert float(cells[4]) == pytest.approx(spread["mean_kld"]["mean"], rel=1e-2)
        assert float(cells[6]) == float(f"{spread['mean_kld']['standard_error']:.0e}")


def test_the_report_is_written_and_holds_what_json_does(cli, other):
    changed = other(config=lambda c: c.update(rms_norm_eps=0.3))
    run = cli("compare", SAME, changed, "--tokens", TOKENS, "--html", "report.html", "--json")
    assert run.code == 1
    assert "wrote report.html" in run.err
    page = Path("report.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["candidates"][0]["headline"] == run.document["candidates"][0]["headline"]
    assert len(data["candidates"][0]["sites"]) == len(run.document["candidates"][0]["sites"])


def test_a_report_that_could_not_be_written_is_refused_before_anything_is_opened(cli):
    for name in ("none/report.html", ""):
        run = cli("compare", "no-such-model", SAME, "--tokens", TOKENS, "--html", name)
        assert "no directory" in run.error or "is empty" in run.error


def test_where_the_report_cannot_be_written_after_all_the_answer_is_told(cli, monkeypatch):
    def full(path, document, title=None):
        raise TraceFileError(f"{path} cannot be written: No space left on device.")

    monkeypatch.setattr("llmtrace.view.comparison.save_comparison_page", full)
    run = cli("compare", SAME, SAME, "--tokens", TOKENS, "--html", "report.html")
    assert run.code == 2
    assert "error: report.html cannot be written: No space left" in run.err
    assert run.out.startswith("agrees: ")


def test_candidates_of_one_name_are_told_apart(cli):
    run = cli("compare", SAME, SAME, SAME, "--tokens", TOKENS)
    assert [row.split(": ")[0] for row in run.out.splitlines()[:2]] == [
        "reference:builtin:induction (1)",
        "reference:builtin:induction (2)",
    ]


def test_a_set_of_prompts_is_asked_for_by_its_name(cli):
    assert "give one of the two" in cli("compare", SAME, SAME, "--tokens", TOKENS, "--prompt-set", "full").error
    assert "'fool' is not one of 'quick', 'full'" in cli("compare", SAME, SAME, "--prompt-set", "fool").error
    assert "--weights-only runs nothing" in cli("compare", SAME, SAME, "--prompt-set", "full", "--weights-only").error
    assert "--weights-only runs nothing" in cli("compare", SAME, SAME, "--html", "a.html", "--weights-only").error
    assert (
        "no tokenizer that reads the texts of the prompt set 'full'"
        in cli("compare", SAME, SAME, "--prompt-set", "full").error
    )


def test_mechanisms_are_in_the_document_and_in_the_text(cli, validate):
    args = ("compare", SAME, SAME, "--prompt", "a b c d a b c d", "--mechanisms")
    run = cli(*args, "--json")
    validate("compare", run.document)
    (candidate,) = run.document["candidates"]
    assert candidate["mechanisms"]["flagged"] is False
    assert candidate["mechanisms"]["words"].startswith("the same mechanisms: 100%")
    shown = cli(*args).out
    assert candidate["mechanisms"]["words"] in shown
    assert "1 of 1" in shown
    assert "--mechanisms runs both sides" in cli("compare", SAME, SAME, "--mechanisms", "--weights-only").error
