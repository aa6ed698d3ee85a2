"""The reference backend, opened like any other, says what transformers says of the same directory."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.data import embedded
from llmtrace.testing.tiny import write_tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

REPEATED = [0, 3, 1, 6, 5, 2, 15, 4, 3, 1, 6, 5, 2, 15, 4]
TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]


def compared(network, directory, ids, dtype="float64"):
    """Relative errors of hidden states, logits and attention patterns."""
    with torch.no_grad():
        output = network(torch.tensor([ids]), output_hidden_states=True, output_attentions=True, use_cache=False)
    *stream, last = output.hidden_states
    expected = {f"blocks.{layer}.resid_pre": state for layer, state in enumerate(stream)}
    expected |= {f"blocks.{layer}.attn.pattern": weights for layer, weights in enumerate(output.attentions)}
    expected |= {"ln_final.out": last, "logits": output.logits}
    with llmtrace.open(directory, backend="reference", options={"dtype": dtype}) as model:
        trace = model.trace(ids, capture=list(expected))
    errors = {}
    for site, tensor in expected.items():
        found, known = trace[site].array, tensor[0].double().numpy()
        assert found.shape == known.shape, site
        errors[site] = float(np.linalg.norm(found - known) / np.linalg.norm(known))
    return errors


def loaded(directory, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def test_the_embedded_model_agrees_in_single_precision():
    directory = embedded("induction")
    errors = compared(loaded(directory, torch.float32), directory, REPEATED)
    assert max(errors.values()) < 1e-5, errors


def test_it_agrees_better_where_torch_computes_in_double():
    """Not to 1e-15: transformers keeps rotary tables and softmax in single precision."""
    directory = embedded("induction")
    errors = compared(loaded(directory, torch.float64), directory, REPEATED)
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "cohere", "gpt_oss", "qwen2_moe"])
def test_other_families_agree_through_the_same_door(family, dtype, tmp_path):
    network = write_tiny(family, tmp_path)
    network.set_attn_implementation("eager")
    errors = compared(network, tmp_path, TOKENS, dtype)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "qwen2_moe"])
def test_single_precision_verifies_itself_and_hands_over_what_it_offers(family, tmp_path):
    write_tiny(family, tmp_path)
    with llmtrace.open(tmp_path, backend="reference", options={"dtype": "float32"}) as model:
        trace = model.trace(TOKENS)
        offered = {site: model.session.offers[site].dtype for site in trace}
        assert {site: signal.array.dtype.name for site, signal in trace.signals.items()} == offered
    assert {error.status for error in trace.verify()} == {"holds"}


def test_a_second_run_gives_the_same_bytes(tmp_path):
    write_tiny("llama", tmp_path)
    with llmtrace.open(tmp_path, backend="reference") as model:
        first, second = (model.trace(TOKENS, capture="logits")["logits"].array for _ in range(2))
    assert first.tobytes() == second.tobytes()
