"""Writing down a run, and running it again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from llmtrace.dataflow.graph import Flow
from llmtrace.errors import BackendError, UnsupportedModelError
from llmtrace_torch.tape.graph import read_graph
from llmtrace_torch.tape.lengths import Linear, aligned
from llmtrace_torch.tape.record import TOKENS, Tape, record
from llmtrace_torch.tape.replay import Replay

FAMILIES = ("llama", "gpt2", "gemma2", "falcon", "bloom", "gptj", "mpt", "olmo2", "phi", "mixtral")


def replay(one: Tape, other: Tape, model: nn.Module) -> Replay:
    calls = aligned(one, other, dict(model.named_modules()))
    graph, numbers = read_graph(one, calls)
    return Replay(Flow(graph, TOKENS), calls, {**one.leaves, **numbers}, torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tape_run_again_on_other_tokens_and_more_of_them_gives_the_models_own_logits(loaded, family, tokens):
    model = loaded(family)
    if family == "mixtral":
        model.set_experts_implementation("batched_mm")
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    again = replay(one, other, model).run({TOKENS: tokens.numpy()}, [one.logits], tokens.shape[1])[one.logits]
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits.numpy()
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_what_is_written_down_is_what_was_there(loaded, family, tokens):
    model, seen = loaded(family), {}
    with torch.no_grad():
        states = model(tokens, use_cache=False, output_hidden_states=True).hidden_states
    tape = record(model, tokens[0].tolist())
    seen = {ran.module: ran for ran in tape.modules}
    for layer in range(len(states) - 1):
        ran = seen[f"model.layers.{layer}"]
        assert torch.equal(tape.values[ran.takes[0]], states[layer])


class Careless(nn.Module):
    """Writes into what it made, through views of it, and looks at the views again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x) * 1.0
        half = y[..., :8]
        y[..., 4:12] += 1.0
        half.mul_(2.0)
        return y + half.sum(-1, keepdim=True)


class Filled(nn.Module):
    """Writes into what it made under another name of the same tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros_like(x)
        return empty.detach().add_(self.inner(x))


def test_a_value_stays_what_it_was_though_another_name_of_it_is_written_into(loaded, tokens):
    model = loaded("llama")
    model.model.norm = Filled(model.model.norm)
    tape = record(model, tokens[0].tolist())
    (made,) = (call for call in tape.calls if call.name == "zeros_like" and call.module == "model.norm")
    assert not tape.values[made.makes[0]].any()


def test_memory_that_is_written_into_through_views_is_followed(loaded, tokens):
    model = loaded("llama")
    model.model.norm = Careless(model.model.norm)
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    again = replay(one, other, model).run({TOKENS: tokens.numpy()}, [one.logits], tokens.shape[1])[one.logits]
    with torch.no_grad():
        assert np.array_equal(again, model(tokens, use_cache=False).logits.numpy())


class Minded(nn.Module):
    """Does something else for long prompts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] < 8 else x.tanh()


class Bounded(nn.Module):
    """Tells an operator something else for long prompts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(None if x.shape[1] < 8 else 0.0, 0.5)


@pytest.mark.parametrize("kind", [Minded, Bounded])
def test_a_module_that_does_other_things_for_longer_prompts_is_one_call(loaded, tokens, kind):
    model = loaded("llama")
    model.model.norm = kind()
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    (whole,) = (call for call in aligned(one, other, dict(model.named_modules())) if call.module == "model.norm")
    assert whole.name == "Module"
    again = replay(one, other, model).run({TOKENS: tokens.numpy()}, [one.logits], tokens.shape[1])[one.logits]
    with torch.no_grad():
        assert np.array_equal(again, model(tokens, use_cache=False).logits.numpy())


def test_a_model_that_does_other_things_outside_its_modules_is_refused(loaded, monkeypatch):
    model = loaded("llama")
    forward = type(model).forward

    def minded(self, ids, **kwargs):
        return forward(self, ids if ids.shape[1] < 8 else ids + 1, **kwargs)

    monkeypatch.setattr(type(model), "forward", minded)
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    with pytest.raises(UnsupportedModelError, match="other lengths"):
        aligned(one, other, dict(model.named_modules()))


def test_a_number_that_is_none_for_a_length_is_an_error_of_the_part(loaded):
    from fractions import Fraction

    assert Linear(Fraction(1, 4), Fraction(1)).at(8) == 3
    with pytest.raises(ValueError, match="25/4"):
        Linear(Fraction(3, 4), Fraction(1)).at(7)
    model = loaded("gpt2")
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    with pytest.raises(BackendError, match="cannot be run again for 5000 tokens"):
        replay(one, other, model).run({}, [one.logits], 5000)


def test_large_tensors_that_a_module_keeps_to_itself_are_let_go(loaded, monkeypatch):
    from llmtrace_torch.tape import record as module

    model = loaded("mixtral")
    model.set_experts_implementation("batched_mm")
    whole = record(model, list(range(2, 8)))
    monkeypatch.setattr(module, "LARGE", 2000)
    less = record(model, list(range(2, 8)))
    assert len(less.calls) == len(whole.calls)
    assert set(less.leaves) == set(whole.leaves), "none of them is taken for a constant later"
    assert max(value.numel() for name, value in whole.values.items() if name not in whole.leaves) > 2000
    assert torch.equal(less.values[less.logits], whole.values[whole.logits])


def written(x: torch.Tensor, by: float) -> torch.Tensor:
    """Something large, half of which was written into after it was made."""
    y = x.repeat(1, 1, 7)
    y[..., : 4 * x.shape[-1]] += by
    return y


class Wasteful(nn.Module):
    """Makes something large, and hands out something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        written(x, 3.0)
        return x * 3.0


class Thrifty(nn.Module):
    """Hands out a part of something large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return written(x, 2.0)[..., -x.shape[-1] :] * 1.0


def test_memory_that_was_let_go_is_not_taken_for_what_lies_there_next(loaded, tokens, monkeypatch):
    """As an allocator may have it: one large tensor lies where the last one did."""
    from llmtrace_torch.tape import record as module

    model = loaded("llama")
    model.model.norm = nn.Sequential(Wasteful(), Thrifty())
    width, own = model.config.hidden_size, module.memory_of
    large = 6 * 7 * width * torch.float32.itemsize
    again_and_again = lambda x: 1 if x.untyped_storage().nbytes() in (large, large * 3 // 2) else own(x)  # noqa: E731
    monkeypatch.setattr(module, "memory_of", again_and_again)
    monkeypatch.setattr(module, "LARGE", 12 * width)
    one, other = (record(model, list(range(2, 2 + length))) for length in (6, 9))
    again = replay(one, other, model).run({TOKENS: tokens.numpy()}, [one.logits], tokens.shape[1])[one.logits]
    with torch.no_grad():
        np.testing.assert_allclose(again, model(tokens, use_cache=False).logits.numpy(), rtol=1e-5, atol=1e-5)
