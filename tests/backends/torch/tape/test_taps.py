"""Looking at values, and exchanging them, while a model runs."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.tapped import tapped
from llmtrace_torch.tape.taps import Tap

FAMILIES = ("llama", "gpt2", "gemma2", "falcon", "gptj", "mixtral", "olmo2")


def run(model, tokens, taps=(), hand=lambda tap, tensor: None):
    with torch.no_grad(), tapped(dict(model.named_modules()), list(taps), hand):
        return model(tokens, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tap_shows_its_value_and_no_logit_moves_a_bit(loaded, family, tokens):
    model = loaded(family)
    found, seen = find(model, family), {}
    taps = [each.tap for each in found.passing.values()]
    looked = run(model, tokens, taps, lambda tap, tensor: seen.update({tap: tensor.clone()}))
    assert torch.equal(looked, run(model, tokens))
    assert seen.keys() == set(taps)
    with torch.no_grad():
        states = model(tokens, use_cache=False, output_hidden_states=True).hidden_states
    for layer in range(len(found.spec.blocks)):
        name, _ = found.places[f"blocks.{layer}.resid_pre"]
        assert torch.equal(seen[found.passing[name].tap].reshape(states[layer].shape), states[layer])


@pytest.mark.parametrize("port", ["in", "out", "made"])
def test_what_is_exchanged_passes_on(loaded, tokens, port):
    model = loaded("llama")
    down = model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        down.bias.zero_()
    tap = Tap("model.layers.1.mlp.down_proj", 0, port, 0, "addmm" if port == "made" else "")
    changed = run(model, tokens, [tap], lambda tap, tensor: torch.zeros_like(tensor))
    with torch.no_grad():
        down.weight.zero_()
    assert torch.equal(changed, run(model, tokens))


def test_what_an_operator_is_about_to_read_is_seen_and_exchanged(loaded, tokens):
    model, seen = loaded("llama"), []
    down = model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        down.bias.zero_()
    tap = Tap("model.layers.1.mlp.down_proj", 0, "read", 0, "addmm", 1)
    changed = run(model, tokens, [tap], lambda tap, tensor: seen.append(tensor) or torch.zeros_like(tensor))
    assert seen[0].shape[-1] == model.config.intermediate_size
    with torch.no_grad():
        down.weight.zero_()
    assert torch.equal(changed, run(model, tokens))


def test_hooks_and_the_mode_are_gone_after_a_run_that_fails(loaded, tokens):
    model = loaded("llama")
    taps = [Tap("model.layers.0.self_attn", 0, "made", 0, "add"), Tap("model.layers.1", 0, "out", 0)]

    def fail(tap, tensor):
        raise ArithmeticError(str(tap.port))

    for tap in taps:
        with pytest.raises(ArithmeticError):
            run(model, tokens, [tap], fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert run(model, tokens).isfinite().all()


def test_operators_that_are_called_while_looking_are_not_counted(loaded, tokens):
    model, seen = loaded("llama"), []
    taps = [Tap("model.layers.0.mlp", 0, "in", 0), Tap("model.layers.0.mlp", 0, "made", 0, "mul")]
    run(model, tokens, taps, lambda tap, tensor: seen.append((tap.port, (tensor * 2 * 3).shape)) or None)
    wide = model.config.intermediate_size
    assert [(port, shape[-1]) for port, shape in seen] == [("in", model.config.hidden_size), ("made", wide)]
