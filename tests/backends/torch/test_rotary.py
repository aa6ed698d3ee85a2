"""What a prompt gives does not depend on what ran before it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers

import llmtrace
from llmtrace.testing.tiny import write_tiny
from llmtrace_torch.rotary import forgetful

LONG = [int(id) for id in np.random.default_rng(0).integers(0, 97, 60)]
PROMPTS = {"short": LONG[:10], "middle": LONG[:24], "long": LONG}
"""The model was trained on 16 tokens."""
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
    "short_factor": [1.0 + 0.1 * i for i in range(12)], "long_factor": [2.0 + 0.3 * i for i in range(12)],
}  # fmt: skip
CASES = {
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}),
    "longrope": ("llama", {"rope_parameters": LONGROPE, "max_position_embeddings": 64}),
    "longrope, by kinds of layers": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": LONGROPE,
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            "max_position_embeddings": 64,
        },
    ),
}


@pytest.fixture(params=CASES)
def written(request, tmp_path):
    family, overrides = CASES[request.param]
    write_tiny(family, tmp_path, **overrides)
    return tmp_path


def fresh(directory, prompt):
    """Logits of a transformers model that has never seen another prompt."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([prompt]), use_cache=False).logits[0].numpy()


def state(model):
    return {
        name: (
            dict(vars(module)),
            {own: (id(buffer), buffer.clone()) for own, buffer in module.named_buffers(recurse=False)},
        )
        for name, module in model.named_modules()
    }


def test_every_prompt_gives_what_a_fresh_model_gives_in_any_order(written):
    expected = {name: fresh(written, prompt) for name, prompt in PROMPTS.items()}
    with llmtrace.open(written, backend="torch", preset="exact") as model:
        for name in ("middle", "short", "long", "middle", "short", "long", "middle"):
            trace = model.trace(PROMPTS[name], capture=["logits", "blocks.*.attn.{q,rot_q,k,rot_k}"])
            assert np.array_equal(trace["logits"].array, expected[name]), name
            verdicts = {error.site: error.status for error in trace.verify()}
            assert verdicts["blocks.0.attn.rot_q"] == verdicts["blocks.2.attn.rot_k"] == "holds"
            assert "violated" not in verdicts.values()


def test_a_run_leaves_frequencies_lengths_and_all_else_as_found(written):
    with llmtrace.open(written, backend="torch", preset="exact") as model:
        inner = model.session.model
        before = state(inner)
        model.trace(PROMPTS["long"], capture="logits")
        after = state(inner)
        for name, (attributes, buffers) in before.items():
            assert attributes.keys() == after[name][0].keys(), name
            assert {key: value for key, value in attributes.items() if isinstance(value, int | float | str)} == {
                key: value for key, value in after[name][0].items() if isinstance(value, int | float | str)
            }
            for own, (place, numbers) in buffers.items():
                assert after[name][1][own][0] == place and torch.equal(after[name][1][own][1], numbers), (name, own)


def test_it_is_put_back_after_an_error_too(tmp_path):
    write_tiny("llama", tmp_path, rope_parameters=DYNAMIC, max_position_embeddings=16)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    kept = model.model.rotary_emb.inv_freq.clone()
    with pytest.raises(KeyError), torch.no_grad(), forgetful(model.modules()):
        model(torch.tensor([LONG]), use_cache=False)
        assert not torch.equal(model.model.rotary_emb.inv_freq, kept)  # transformers remembers
        raise KeyError
    assert torch.equal(model.model.rotary_emb.inv_freq, kept) and model.model.rotary_emb.max_seq_len_cached == 16
