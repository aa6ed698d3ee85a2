"""What `compare` promises beside the faults that it finds: sides, prompts, causes of others, who is right, and what it asks for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.comparison.case import Hypothesis
from llmtrace.comparison.comparing import compare, known_hypotheses
from llmtrace.comparison.hypotheses import HYPOTHESES
from llmtrace.comparison.recent import Recent
from llmtrace.data import embedded
from llmtrace.errors import LimitError, OptionError, PromptError, UnsupportedModelError
from llmtrace.plugins import plugins

SAME = "reference:builtin:induction"
IDS = [0, 1, 6, 5, 2, 1, 6]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The embedded model with another rotary base."""
    directory = tmp_path_factory.mktemp("converted") / "model"
    shutil.copytree(embedded("induction"), directory)
    config = json.loads((directory / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5e7
    (directory / "config.json").write_text(json.dumps(config))
    return f"reference:{directory}"


@pytest.fixture
def model():
    with llmtrace.open(SAME) as opened:
        yield opened


def test_sides_may_be_open_and_stay_so(model, converted):
    found = compare(model, converted, prompts=[IDS])
    assert found.first_divergence.site == "blocks.0.attn.rot_q"
    assert model.trace(IDS, capture="logits")["logits"].array.shape[0] == len(IDS)


def test_a_trace_in_memory_is_a_side(model, converted):
    with llmtrace.open(converted) as other:
        found = compare(model, other.trace(IDS))
    assert found.first_divergence.cause.words.startswith("rotary theta 50,000,000 instead of 100,000,000")


def test_the_explanations_of_plugins_are_tried(model, converted, monkeypatch):
    asked = []

    def tries(case):
        asked.append(case.site)
        yield "the moon is full", np.zeros(case.found.shape)

    brought = evolve(plugins(), hypotheses={"moon": Hypothesis("moon", ("attn.rot_q",), tries)})
    monkeypatch.setattr("llmtrace.plugins.plugins", lambda: brought)
    assert known_hypotheses() == (*HYPOTHESES, *brought.hypotheses.values())
    found = compare(model, converted, prompts=[IDS])
    assert asked == ["blocks.0.attn.rot_q"]
    assert found.first_divergence.cause.name == "its-own-settings"


def test_what_nothing_explains_is_said_to_be_unexplained(model, converted):
    found = compare(model, converted, prompts=[IDS], hypotheses=())
    assert found.first_divergence.cause is None
    assert "unexplained" in found.candidates[0].headline


def test_the_side_that_is_right_is_nearer_to_float64(model, converted):
    (logits,) = [
        each for each in compare(model, converted, prompts=[IDS]).candidates[0].nearer if each.site == "logits"
    ]
    assert logits.reference == 0
    assert logits.candidate > 0


def test_without_prompts_models_that_no_text_tells_anything_are_asked_ids(model):
    prompts = compare(model, SAME).prompts
    assert len(prompts) > 1
    assert all(part.isdigit() for prompt in prompts for part in prompt.text.split())
    for number, prompt in enumerate(prompts, 1):
        assert prompt.name == str(number)
        assert [token.id for token in prompt.tokens] == [int(part) for part in prompt.text.split()]


def test_tokenizers_are_compared_though_the_built_in_prompts_are_ids(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(embedded("induction"), other)
    words = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(words | {"post_processor": None}))
    found = compare(SAME, f"reference:{other}")
    assert found.verdict == "diverges"
    (one,) = found.candidates[0].tokens
    assert (one.prompt, one.what) == (None, "'<bos>' is not put in front")
    (other / "tokenizer.json").unlink()
    (lacking,) = compare(SAME, f"reference:{other}").candidates
    assert lacking.tokens_not_compared == "the candidate has no tokenizer"
    assert lacking.headline.endswith("; tokens not compared: the candidate has no tokenizer")


def test_it_is_told_what_is_being_done_and_by_default_nobody_is(model, capfd):
    doing = []
    compare(model, SAME, prompts=[IDS, IDS[:3]], progress=doing.append)
    assert doing == [
        "opening builtin:induction", "opening reference:builtin:induction",
        "builtin:induction: prompt 1 of 2", "builtin:induction: prompt 2 of 2",
        "builtin:induction: prompt 1 of 2", "builtin:induction: prompt 2 of 2",
        "builtin:induction: the weights, and why",
    ]  # fmt: skip
    compare(model, SAME, prompts=[IDS])
    assert capfd.readouterr() == ("", "")


def test_a_saved_trace_is_called_by_its_file(model, tmp_path):
    model.trace(IDS).save(tmp_path / "phone.trace")
    (found,) = compare(model, tmp_path / "phone.trace").candidates
    assert found.model.source == str(tmp_path / "phone.trace")
    assert any(note.endswith("phone.trace was recorded of builtin:induction.") for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"candidates": ()}, OptionError, "at least one candidate"),
        ({"prompts": []}, PromptError, "no prompt"),
        ({"prompts": [[]]}, PromptError, "empty"),
        ({"prompts": [[99]]}, PromptError, "99"),
        ({"prompts": "a f e"}, PromptError, "is one text"),
        ({"max_bytes": 0}, LimitError, "Compare on shorter prompts"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments, error, says):
    candidates = arguments.pop("candidates", (SAME,))
    with pytest.raises(error, match=says):
        compare(SAME, *candidates, **({"prompts": [IDS]} | arguments))


def test_a_trace_that_shows_nothing_is_refused(model):
    with pytest.raises(UnsupportedModelError, match="no signal"):
        compare(model, model.trace(IDS, capture="blocks.0.attn.z"), prompts=None)


def test_the_same_model_passes_and_another_fails_with_its_cause(converted):
    from llmtrace.testing import assert_same_model

    assert assert_same_model(SAME, SAME, prompts=[IDS]).verdict == "agrees"
    with pytest.raises(AssertionError, match=r"blocks\.0\.attn\.rot_q: rotary theta 50,000,000"):
        assert_same_model(SAME, converted, prompts=[IDS])
    with pytest.raises(OptionError, match="from 0 to 1"):
        assert_same_model(SAME, SAME, prompts=[IDS], least_same_top=float("nan"))


def test_weights_are_read_once_for_each_block():
    read = []

    class Counting(dict):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    blocks = [f"blocks.{layer}.mlp.{name}" for layer in range(2) for name in ("W_in", "W_out")]
    weights = Counting({name: np.ones(2) for name in ("embed.W_E", *blocks, "unembed.W_U")})
    recent = Recent(weights, room=0)
    first, last = ["embed.W_E", *blocks[:2]], [*blocks[2:], "unembed.W_U"]
    once = [*first, *last]
    assert "blocks.0.mlp.W_in" in recent
    assert len(recent) == len(once) and read == [], "asking whether a weight is there reads none"
    for prompt in (1, 2):
        for name in (*first, *first, *last, *last):
            assert recent[name].sum() == 2
        assert read == once * prompt
    read.clear()
    roomy = Recent(weights, room=3 * np.ones(2).nbytes)
    for _ in range(2):
        assert all(roomy[name].sum() == 2 for name in once)
    assert read == once, "what has room is read once, and the rest was the last block"


def test_nodes_are_called_as_the_runtime_calls_them():
    pytest.importorskip("llmtrace_onnxruntime")
    from llmtrace.comparison.node_data import node_data

    with llmtrace.open("builtin:induction", backend="onnxruntime", preset="exact") as candidate:
        made = {name for node in candidate.session._runner.proto.graph.node for name in node.output}
        (found,) = compare(SAME, candidate, prompts=[IDS]).candidates
    assert found.names.keys() >= {"blocks.0.attn.pattern", "logits"}
    assert set(node_data(found, found.names)["results"]) <= made | {each.site for each in found.sites}
    assert found.names["blocks.0.attn.pattern"] in made


def test_a_reference_that_does_not_obey_its_own_equations_is_found_out(model):
    right = model.trace(IDS)
    wrong = {site: signal.array for site, signal in right.signals.items()}
    wrong["blocks.1.mlp.post"] = wrong["blocks.1.mlp.post"] + 0.5
    rest = list(wrong)[list(wrong).index("blocks.1.mlp.post") + 1 :]
    known = {"tokens": np.asarray(IDS), "positions": np.arange(len(IDS))}
    known |= {site: array for site, array in wrong.items() if site not in rest}
    wrong |= dict(model.equations.run(known, rest))
    reference = evolve(right, signals={site: evolve(right.signals[site], array=array) for site, array in wrong.items()})
    (found,) = compare(reference, model).candidates
    assert found.verdict == "diverges"
    assert (found.first_divergence.site, found.first_divergence.kind) == ("blocks.1.mlp.post", "reference")
    assert "the reference itself does not compute there" in found.headline


def test_pytest_has_it_as_a_fixture(assert_same_model, converted):
    assert assert_same_model(SAME, SAME, prompts=[IDS]).verdict == "agrees"
    with pytest.raises(AssertionError, match="rotary theta"):
        assert_same_model(SAME, converted, prompts=[IDS])
