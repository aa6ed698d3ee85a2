"""`llmtrace compare`: the verdict and exit code, what is shown, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.data import embedded

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
    assert "and 100.0% was asked for" in run.err


def test_prompts_come_from_a_file(cli, tmp_path):
    (tmp_path / "prompts").write_text('a f e b\n\n"a b"\n[0, 1, 6]\n')
    run = cli("compare", SAME, SAME, "--prompts", "prompts", "--json")
    assert run.document["prompts"] == ["a f e b", "a b", "0 1 6"]
    (tmp_path / "prompts").write_text("[0, true]\n")
    assert "Line 1" in cli("compare", SAME, SAME, "--prompts", "prompts").error


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
