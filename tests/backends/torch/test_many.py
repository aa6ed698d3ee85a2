"""Prompts that run together give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmtrace.schema.verify import distance, token_axis

PROMPTS = [[5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17], [7], [1, 2, 3, 4, 5], [60, 2, 33, 5, 17, 9, 9], [96, 1]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "mixtral", "gemma3_text", "falcon", "qwen2_moe"])
def test_each_trace_is_the_same_as_alone(opened, family, attention):
    model = opened(family, attention=attention)
    together = model.trace_many(PROMPTS)
    for prompt, trace in zip(PROMPTS, together, strict=True):
        alone = model.trace(prompt)
        assert list(trace) == list(alone) and trace.ids == tuple(prompt)
        for site in model.session.offers:
            found, expected = trace[site].array, alone[site].array
            if site.endswith("expert_index"):
                assert np.array_equal(found, expected), site
            else:
                assert distance(found, expected, token_axis(model.equations.steps[site]))[0] < 1e-5, site


@pytest.mark.parametrize("family", ["bloom", "mpt", "gptj", "opt", "gpt_oss"])
def test_old_and_unusual_attention_does_not_see_padding_either(opened, family):
    model = opened(family)
    for prompt, trace in zip(PROMPTS, model.trace_many(PROMPTS), strict=True):
        assert distance(trace["logits"].array, model.trace(prompt)["logits"].array)[0] < 1e-5


def test_prompts_run_in_one_pass_and_many_tokens_in_several(opened, monkeypatch):
    from llmtrace_torch import batches

    model, passes = opened("llama"), []
    model.session.model.register_forward_pre_hook(lambda module, args: passes.append(tuple(args[0].shape)))
    model.trace_many(PROMPTS, capture="logits")
    assert passes == [(5, 12)]
    passes.clear()
    monkeypatch.setattr(batches, "BATCH_TOKENS", 12)
    model.trace_many(PROMPTS, capture="logits")
    assert passes == [(2, 2), (1, 5), (1, 7), (1, 12)]


def test_prompts_of_unlike_length_run_apart_where_rotary_depends_on_the_length(tmp_path):
    import llmtrace
    from llmtrace.testing.tiny import write_tiny

    write_tiny(
        "llama",
        tmp_path,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        max_position_embeddings=8,
    )
    with llmtrace.open(tmp_path, backend="torch") as model:
        for prompt, trace in zip(PROMPTS, model.trace_many(PROMPTS, capture="logits"), strict=True):
            assert distance(trace["logits"].array, model.trace(prompt)["logits"].array)[0] < 1e-5


def test_a_small_leak_of_padding_is_found_when_the_model_is_opened(opened):
    """What stands in the padding is mixed into the shorter prompt, by a fifty-thousandth."""
    from llmtrace.errors import SchemaViolationError
    from llmtrace.neutral import check_neutral

    model = opened("llama")
    check_neutral(model.session)

    def leaking(module, args, output):
        if output.shape[0] > 1:  # prompts run together; the shorter is the first
            output = output.clone()
            output[0] += 2e-5 * output[0, -1]
        return output

    model.session.model.model.layers[1].register_forward_hook(leaking)
    with pytest.raises(SchemaViolationError, match=r"another runs beside it.*move by [1-9]\.\de-06.*padding leak"):
        check_neutral(model.session)
