"""What is read off a running model, against its config and transformers' own outputs."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from llmtrace.errors import BackendError
from llmtrace.families import spec_of
from llmtrace.model import Model
from llmtrace.spec import Mixer
from llmtrace.testing.tiny import TINY
from llmtrace.trace import ModelInfo
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession

FAMILIES = (
    "llama",
    "gpt2",
    "gemma2",
    "falcon",
    "bloom",
    "mpt",
    "olmo2",
    "qwen3_moe",
    "gpt_oss",
    "phi3",
    "cohere2",
    "granite",
)
OTHERWISE = {"falcon", "gpt_oss"}
"""Whose rows write the same numbers otherwise: biases of position that are scaled too, and a stretch that 64 positions do not tell from another."""
HALVES = ("llama", "gemma2", "mixtral", "olmo2", "cohere2", "gpt_oss")
INFO = ModelInfo(
    source="tiny", backend="torch", runtime="PyTorch", versions={}, fingerprint="", weights="float32", device="cpu", settings={}
)  # fmt: skip


def session(model, family):
    found = find(model, family)
    return Model(TapedSession(model, found, INFO, None)), found


@pytest.mark.parametrize("family", [each for each in FAMILIES if each not in OTHERWISE])
def test_the_spec_is_what_the_config_says(loaded, family):
    """Which two readers that share nothing agree on: one reads the config, the other the operators."""
    pytest.importorskip("onnx")
    from tests.backends.onnxruntime.opening import differences

    model = loaded(family)
    _, found = session(model, family)
    assert found.notes == ()
    said = spec_of(model.config.to_dict() | {"model_type": family})
    assert list(differences(found.spec, attrs.evolve(said, context=found.spec.context))) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_signal_follows_and_the_stream_is_the_models_own(loaded, family, tokens):
    model = loaded(family)
    opened, found = session(model, family)
    ids = tokens[0].tolist()
    assert {error.status for error in opened.verify(ids)} == {"holds"}
    trace = opened.trace(ids, capture="**", max_bytes=None)
    with torch.no_grad():
        own = model(tokens, use_cache=False, output_hidden_states=True)
    assert np.array_equal(trace["logits"].array, own.logits[0].numpy())
    for layer, state in enumerate(own.hidden_states[:-1]):
        assert np.array_equal(trace[f"blocks.{layer}.resid_pre"].array, state[0].numpy())
    assert set(opened.session.editable) >= {f"blocks.{layer}.resid_post" for layer in range(len(found.spec.blocks))}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", HALVES)
def test_half_precision_is_read_as_sharply(loaded, family, dtype, tokens):
    opened, found = session(loaded(family, dtype=dtype), family)
    _, single = session(loaded(family), family)
    assert found.notes == ()
    assert {error.status for error in opened.verify(tokens[0].tolist())} == {"holds"}
    assert [type(branch.module) for block in found.spec.blocks for branch in block.branches] == [
        type(branch.module) for block in single.spec.blocks for branch in block.branches
    ]
    assert opened.session.offers["blocks.0.attn.q"].precision.storage == dtype


class Odd(torch.nn.Module):
    """An MLP of no known kind."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * torch.sin(x)


def test_a_part_without_words_is_shown_as_a_whole_and_by_its_name(loaded, tokens):
    model = loaded("llama")
    model.model.layers[1].mlp = Odd(model.model.layers[1].mlp)
    opened, found = session(model, "llama")
    ids = tokens[0].tolist()
    (note,) = found.notes
    assert note.startswith("blocks.1.mlp is captured as a whole and no equation is claimed: ")
    assert isinstance(found.spec.blocks[1].branch("mlp").module, Mixer)
    trace = opened.trace(ids, capture=["blocks.1.resid_*", "blocks.1.mlp_out"])
    total = trace["blocks.1.resid_mid"].array + trace["blocks.1.mlp_out"].array
    assert np.array_equal(trace["blocks.1.resid_post"].array, total)
    assert {error.status for error in opened.verify(ids)} == {"holds", "unchecked"}


class Loop(torch.nn.Module):
    """Goes from token to token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, made = torch.zeros_like(x[:, 0]), []
        for token in range(x.shape[1]):
            state = 0.5 * state + x[:, token]
            made.append(state)
        return torch.stack(made, 1)


def test_a_part_that_goes_from_token_to_token_is_a_whole(loaded, tokens):
    model = loaded("llama")
    model.model.layers[0].mlp = Loop()
    opened, found = session(model, "llama")
    assert isinstance(found.spec.blocks[0].branch("mlp").module, Mixer)
    assert len(found.spec.blocks) == len(model.model.layers)
    assert {error.status for error in opened.verify(tokens[0].tolist())} == {"holds", "unchecked"}


class Only(torch.nn.Module):
    """A block of one branch."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()

    def forward(self, x: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        return x + self.loop(x)


def test_what_alone_makes_a_block_and_is_no_mlp_is_a_mixer(loaded, tokens):
    model = loaded("llama")
    model.model.layers[0] = Only()
    opened, found = session(model, "llama")
    assert [branch.name for branch in found.spec.blocks[0].branches] == ["mixer"]
    assert [branch.name for branch in found.spec.blocks[1].branches] == ["attn", "mlp"]
    trace = opened.trace(tokens[0].tolist(), capture="blocks.0.*")
    assert np.array_equal(
        trace["blocks.0.resid_post"].array, trace["blocks.0.resid_pre"].array + trace["blocks.0.mixer_out"].array
    )


def test_an_edit_of_what_does_not_pass_is_an_error_and_not_silent(loaded, tokens):
    from llmtrace import ablate

    opened, found = session(loaded("llama"), "llama")
    name, _ = found.places["blocks.0.attn.rot_q"]
    elsewhere = attrs.evolve(found.passing[name].editable, place=99)
    found.passing[name] = attrs.evolve(found.passing[name], editable=elsewhere)
    with pytest.raises(BackendError, match=r"blocks\.0\.attn\.rot_q was to be edited"):
        opened.trace(tokens[0].tolist(), capture="logits", edits=[ablate("blocks.0.attn.rot_q")])


def test_tiny_models_are_known():
    assert {*FAMILIES, *HALVES} <= set(TINY)
