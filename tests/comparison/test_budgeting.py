"""What each weight costs: on a model three of whose tensors are bad, on the reference and on PyTorch, held to transformers and PyTorch themselves."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.comparison import budgeting
from llmtrace.errors import CapabilityError, OptionError, PromptError
from llmtrace.testing.model import tiny_model
from tests.comparison.budgets import (
    BAD,
    PROMPTS,
    TEXT,
    copied,
    in_few_bits,
    kl_of,
    logits_of,
    made,
    opens,
    rounded,
    tiny,
)

BACKENDS = ["reference", "torch"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def quantised(model, tmp_path_factory) -> Path:
    return in_few_bits(model, tmp_path_factory.mktemp("quantised") / "model")


@pytest.fixture(scope="module")
def whole(model, quantised):
    """The budget of the quantised model on the three prompts, by backend."""
    return cache(lambda backend: made(backend, model, quantised))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_three_bad_tensors_cost_most(backend, whole):
    found = whole(backend)
    assert {swap.names for swap in found.swaps[:3]} == {(name,) for name in BAD.values()}
    assert found.swaps[2].distance.kl > 10 * found.swaps[3].distance.kl
    assert found.swaps[2].cumulative > 0.9
    matrices = 2 + 3 * 7
    assert len(found.swaps) == matrices
    assert found.headline.startswith("2 of 23 weights that differ cost ")
    assert all(name in found.headline for swap in found.swaps[:2] for name in swap.names)
    assert sum(swap.share for swap in found.swaps) == pytest.approx(1)
    assert found.swaps[-1].cumulative == pytest.approx(1)
    assert found.total == pytest.approx(sum(swap.distance.kl for swap in found.swaps))
    assert found.excess == found.together.kl - found.total
    assert (found.predictions, found.pieces, found.unswapped, found.notes) == (19, 3, (), ())


@pytest.mark.parametrize("backend", BACKENDS)
def test_costs_are_what_transformers_and_pytorch_say(backend, whole, model, quantised):
    found = whole(backend)
    new = load_file(quantised / "model.safetensors")
    plain = logits_of(model, {}, PROMPTS)
    costs = {swap.names: swap.distance.kl for swap in found.swaps}
    for native, name in BAD.items():
        assert costs[name,] == pytest.approx(kl_of(plain, logits_of(model, {native: new[native]}, PROMPTS)), rel=1e-3)
    every = logits_of(model, {name: tensor for name, tensor in new.items() if tensor.ndim > 1}, PROMPTS)
    assert found.together.kl == pytest.approx(kl_of(plain, every), rel=1e-4)
    assert found.candidate.kl == pytest.approx(kl_of(plain, logits_of(quantised, {}, PROMPTS)), rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_weights_of_a_candidate_make_the_candidate(backend, whole):
    """What is left for the runtime is float32 rounding: nothing, where both sides run alike."""
    found = whole(backend)
    assert found.runtime.kl < 1e-11
    assert abs(found.rest) < 1e-6 * found.candidate.kl
    assert found.runtime.same_top == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_swapped_is_exactly_nothing(backend, model):
    found = made(backend, model, model)
    assert found.swaps == ()
    assert (found.total, found.together.kl, found.candidate.kl, found.runtime.kl) == (0.0, 0.0, 0.0, 0.0)
    assert (found.relative_excess, found.rest) == (None, 0.0)
    assert found.headline == "no weight differs from the reference's; the candidate itself is at 0 nats"


def test_another_runtime_is_told_from_other_weights(model, quantised):
    """On the reference in float32, held to PyTorch."""
    with opens("torch", model) as reference, opens("reference", quantised) as candidate:
        found = llmtrace.compare(reference, candidate, prompts=PROMPTS, budget=True).candidates[0].budget
    assert 0 < found.runtime.kl < 1e-9 < found.candidate.kl


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_text_is_counted_as_llama_cpp_does(backend, model, quantised):
    found = made(backend, model, quantised, text=TEXT, context=12)
    torch = pytest.importorskip("torch")
    chunks = [TEXT[start : start + 12] for start in (0, 12, 24)]
    targets = torch.tensor([token for chunk in chunks for token in chunk[7:]])
    plain, other = (torch.cat([row[6:11] for row in logits_of(each, {}, chunks)]) for each in (model, quantised))
    surprise = [float(torch.nn.functional.cross_entropy(each, targets)) for each in (plain, other)]
    assert (found.predictions, found.pieces, found.context) == (15, 3, 12)
    assert found.perplexity == pytest.approx(math.exp(surprise[0]), rel=1e-6)
    assert found.candidate.perplexity == pytest.approx(math.exp(surprise[1]), rel=1e-6)
    assert found.candidate.log_ppl_ratio == pytest.approx(surprise[1] - surprise[0], rel=1e-4)
    assert found.candidate.kl == pytest.approx(kl_of([plain], [other]), rel=1e-4)
    moved = [each.softmax(-1)[range(15), targets] for each in (plain, other)]
    assert found.candidate.rms_shift == pytest.approx(float(((moved[1] - moved[0]) ** 2).mean().sqrt()), rel=1e-4)
    assert found.candidate.same_top == float((plain.argmax(-1) == other.argmax(-1)).double().mean())
    assert {swap.names[0] for swap in found.swaps[:3]} == set(BAD.values())


def test_batches_come_to_the_same(whole, model, quantised, monkeypatch):
    once = whole("reference")
    monkeypatch.setattr(budgeting, "HELD", 1)
    doing = []
    split = made("reference", model, quantised, progress=doing.append)
    assert [swap.names for swap in split.swaps] == [swap.names for swap in once.swaps]
    assert split.together == once.together
    assert (split.predictions, split.pieces) == (once.predictions, once.pieces) == (19, 3)
    assert split.candidate == once.candidate
    assert sum("of batch 3 of 3" in each for each in doing) == 23 + 2 + 1
    assert sum("weight 7 of 23" in each for each in doing) == 3


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A tied model; the same quantised; and quantised as a file that has its head besides."""
    base = tmp_path_factory.mktemp("tied")
    model = base / "model"
    tiny_model("gpt2", model)

    def change(name, tensor):
        return rounded(tensor, 4) if "wte" in name else tensor

    one = copied(model, base / "one", change)
    two = copied(model, base / "two", change)
    tensors = load_file(two / "model.safetensors")
    name = next(each for each in tensors if "wte" in each)
    config = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors["lm_head.weight"] = rounded(load_file(model / "model.safetensors")[name], 3)
    save_file(tensors, two / "model.safetensors", metadata={"format": "pt"})
    return model, one, two


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tied_embedding_is_one_tensor(backend, tied):
    model, one, _ = tied
    found = made(backend, model, one)
    (swap,) = found.swaps
    assert swap.names == ("embed.W_E", "unembed.W_U")
    assert (swap.numbers, swap.bytes) == (97 * 64, 4 * 97 * 64)
    assert found.together.kl == swap.distance.kl > 0
    assert found.runtime.kl < 1e-11


def test_a_candidate_with_a_head_of_its_own_cannot_be_put_into_one_tensor(tied):
    """PyTorch's model has one memory for both: it is said, and nothing is made up. The reference reads each by its name."""
    model, _, two = tied
    found = made("torch", model, two)
    assert found.swaps == ()
    (refused,) = found.unswapped
    assert refused.names == ("embed.W_E", "unembed.W_U")
    assert "lie in the same memory" in refused.why
    with opens("reference", model) as reference, opens("reference", two) as candidate:
        apart = llmtrace.compare(reference, candidate, prompts=PROMPTS, budget=True).candidates[0].budget
    assert {swap.names for swap in apart.swaps} == {("embed.W_E",), ("unembed.W_U",)}
    assert apart.runtime.kl < 1e-11


def test_numbers_are_rounded_to_the_type_of_the_reference_and_that_is_said(model, quantised):
    pytest.importorskip("torch")
    with (
        llmtrace.open(model, backend="torch", options={"dtype": "bfloat16"}) as reference,
        opens("reference", quantised) as candidate,
    ):
        found = llmtrace.compare(reference, candidate, prompts=PROMPTS, budget=True).candidates[0].budget
    assert found.notes == ("The reference computes in bfloat16, so that the candidate's weights are rounded to it.",)
    assert {swap.names[0] for swap in found.swaps[:3]} == set(BAD.values())


def test_a_saved_trace_is_a_candidate_and_no_reference(model, quantised):
    with opens("reference", model) as reference, opens("reference", quantised) as candidate:
        trace = candidate.trace(PROMPTS[1])
        found = llmtrace.compare(reference, trace, budget=True).candidates[0].budget
        assert found.candidate.kl == pytest.approx(found.together.kl, rel=1e-6)
        assert (found.pieces, found.candidate.kl_error) == (1, None)
        with pytest.raises(CapabilityError, match="is a saved trace: name the model itself"):
            llmtrace.compare(reference.trace(PROMPTS[1]), candidate, budget=True)
        with pytest.raises(OptionError, match="has its own prompt: give no text"):
            llmtrace.compare(reference, trace, budget=True, text=TEXT)
        narrow = candidate.trace(PROMPTS[1], capture=["blocks.*.resid_post", "blocks.*.attn.out"])
        told = llmtrace.compare(reference, narrow, budget=True).candidates[0].budget
        assert told.candidate is None or told.candidate.kl == pytest.approx(found.candidate.kl, rel=1e-6)


def test_what_cannot_be_done_is_said_before_anything_runs(model, quantised):
    with opens("reference", model) as reference, opens("reference", quantised) as candidate:
        doing = []
        with pytest.raises(PromptError, match="fills no chunk of 48"):
            llmtrace.compare(reference, candidate, budget=True, text=TEXT, context=48, progress=doing.append)
        with pytest.raises(OptionError, match="models' context of 64"):
            llmtrace.compare(reference, candidate, budget=True, text=TEXT, progress=doing.append)
        with pytest.raises(OptionError, match="ask for one"):
            llmtrace.compare(reference, candidate, text=TEXT, progress=doing.append)
        assert not any("prompt 1" in each for each in doing)


def test_without_being_asked_there_is_none(model, quantised):
    with opens("reference", model) as reference, opens("reference", quantised) as candidate:
        found = llmtrace.compare(reference, candidate, prompts=PROMPTS[:1])
    assert found.candidates[0].budget is None
    assert found.to_json()["candidates"][0]["budget"] is None


def test_what_is_being_done_is_counted_whatever_turns_out_not_to_be_possible(tied, tmp_path):
    """Of three weights, the first of which is not swapped after all."""
    _, _, two = tied
    model, _, _ = tied
    other = copied(
        two,
        tmp_path / "other",
        lambda name, tensor: tensor * np.float32(1.1) if "mlp.c_proj.weight" in name else tensor,
    )
    doing = []
    found = made("torch", model, other, progress=doing.append)
    assert [each.names for each in found.unswapped] == [("embed.W_E", "unembed.W_U")]
    counts = [each.partition(": weight ")[2].partition(",")[0] for each in doing if ": weight " in each]
    assert counts == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
