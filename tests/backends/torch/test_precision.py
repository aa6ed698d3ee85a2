"""Other types than float32: what is handed over has the runtime's own type, and says how finely it is rounded."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmtrace.schema.evaluate import Equations
from llmtrace.schema.verify import distance

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gpt_neox"])
def test_a_bfloat16_trace_is_bfloat16_and_its_equations_hold(opened, family, attention):
    model = opened(family, dtype="bfloat16", attention=attention)
    trace = model.trace(TOKENS)
    assert trace["blocks.0.resid_pre"].array.dtype == ml_dtypes.bfloat16
    assert trace["logits"].precision.storage == "bfloat16" and trace["logits"].precision.accumulation == "float32"
    assert [(error.site, error.relative_error) for error in trace.verify() if error.status != "holds"] == []


def test_bfloat16_values_are_those_of_transformers_bit_for_bit(opened, bare):
    with torch.no_grad():
        alone = bare("llama", "sdpa", "bfloat16")(torch.tensor([TOKENS]), use_cache=False).logits[0]
    found = opened("llama", dtype="bfloat16", attention="sdpa").trace(TOKENS, capture="logits")["logits"].array
    assert np.array_equal(found.astype(np.float32), alone.float().numpy())


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma2", "olmo2", "gpt_neox", "mixtral"])
def test_a_float64_model_agrees_with_the_equations_to_six_digits(opened, family):
    model = opened(family, dtype="float64")
    trace = model.trace(TOKENS)
    captured = {site: signal.array for site, signal in trace.signals.items() if site in model.session.offers}
    assert captured["logits"].dtype == np.float64
    inputs = {"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
    for site, expected in Equations(model.spec, model.weights).run(inputs, set(captured)):
        assert distance(captured[site], expected)[0] < 1e-6, site
    assert [(error.site, error.relative_error) for error in trace.verify() if error.status != "holds"] == []


def test_the_stored_type_is_kept_unless_another_is_asked_for(tmp_path):
    import llmtrace
    from llmtrace.testing.tiny import write_tiny

    write_tiny("llama", tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    with llmtrace.open(tmp_path, backend="torch") as model:
        assert (
            model.info.weights == "bfloat16"
            and model.info.settings["dtype"] == "bfloat16"
            and model.info.preset == "shipped"
        )
    with llmtrace.open(tmp_path, backend="torch", preset="exact") as model:
        assert model.session.offers["logits"].dtype == "float32" and model.info.settings["attention"] == "eager"
        assert model.info.preset == "exact" and model.session.stored["unembed.W_U"] == "bfloat16"
