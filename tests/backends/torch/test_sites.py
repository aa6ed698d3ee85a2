"""Every site that is handed out obeys its equation, and is what transformers itself says by other ways."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmtrace.schema.evaluate import Equations
from llmtrace.schema.verify import distance, token_axis

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
FAMILIES = [
    "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "phi",
    "phi3", "granite", "mixtral", "qwen3_moe", "gpt_oss", "falcon", "gptj", "bloom", "mpt", "opt", "cohere", "olmo",
    "qwen2_moe", "granitemoe", "granitemoeshared", "dots1", "stablelm", "gpt_neo", "glm4",
]  # fmt: skip
SDPA = [
    "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "olmo2", "phi", "phi3",
    "granite", "mixtral", "qwen3_moe", "falcon", "opt", "olmo",
]  # fmt: skip
"""Transformers has no sdpa attention for Gemma 2, GPT-OSS, GPT-J, GPT-Neo, BLOOM and MPT."""
CASES = [(family, "eager") for family in FAMILIES] + [(family, "sdpa") for family in SDPA]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tiny):
    import llmtrace

    family, kernel = request.param
    with llmtrace.open(tiny(family), backend="torch", preset="exact", options={"attention": kernel}) as model:
        yield family, kernel, model, model.trace(TOKENS)


def test_every_captured_site_obeys_its_equation(case):
    _, _, model, trace = case
    verdicts = trace.verify()
    judged = {error.site for error in verdicts}
    assert judged == set(model.session.offers)
    assert [error.site for error in verdicts if error.status != "holds"] == []


def test_every_captured_site_agrees_with_the_equations_run_in_float64(case):
    _, _, model, trace = case
    captured = {site: signal.array for site, signal in trace.signals.items() if signal.provenance.kind != "derived"}
    inputs = {"tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
    for site, expected in Equations(model.spec, model.weights).run(inputs, set(captured)):
        if site.endswith("expert_index"):
            assert np.array_equal(captured[site], expected), site
        else:
            error, worst = distance(captured[site], expected, token_axis(model.equations.steps[site]))
            assert error < 1e-5 and worst < 1e-4, (site, error, worst)


def test_what_transformers_computes_is_read_kernel_by_kernel(opened):
    """transformers 5.23 adds Falcon's ALiBi twice under eager attention, once in the mask and once to the scores: it runs with twice the slopes."""
    once, twice = (opened("falcon", attention=kernel).spec.blocks[0].attention.slopes for kernel in ("sdpa", "eager"))
    assert np.allclose(2 * np.array(once), twice, rtol=1e-6)


def test_logits_are_bit_for_bit_those_of_transformers_alone(case, bare):
    family, kernel, _, trace = case
    with torch.no_grad():
        alone = bare(family, kernel)(torch.tensor([TOKENS]), use_cache=False).logits[0]
    assert np.array_equal(trace["logits"].array, alone.numpy())


def test_the_stream_and_the_pattern_are_those_that_transformers_returns(case, bare):
    family, kernel, model, trace = case
    model_alone = bare(family, kernel)
    with torch.no_grad():
        told = model_alone(
            torch.tensor([TOKENS]), use_cache=False, output_hidden_states=True, output_attentions=kernel == "eager"
        )
    streams = [state[0].numpy() for state in told.hidden_states]
    for layer in range(len(model.spec.blocks)):
        assert np.array_equal(trace[f"blocks.{layer}.resid_pre"].array, streams[layer])
    assert distance(trace["ln_final.out"].array, streams[-1])[0] < 1e-6
    for layer, pattern in enumerate(told.attentions or ()):
        if pattern is not None:
            assert distance(trace[f"blocks.{layer}.attn.pattern"].array, pattern[0].numpy(), 1)[0] < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "mixtral"])
def test_attention_and_mlp_outputs_are_what_the_modules_return(family, opened, bare):
    """The modules are named by hand."""
    attention = {"gpt2": "attn", "gpt_neox": "attention"}.get(family, "self_attn")
    found: dict[str, np.ndarray] = {}

    def keep(site):
        def hook(module, args, output):
            found[site] = (output[0] if isinstance(output, tuple) else output)[0].detach().numpy().copy()

        return hook

    alone = bare(family)
    for name, module in alone.named_modules():
        parts = name.split(".")
        if parts[-1] in (attention, "mlp") and parts[-2].isdigit():
            part = "attn.out" if parts[-1] == attention else "mlp.out"
            module.register_forward_hook(keep(f"blocks.{parts[-2]}.{part}"))
    with torch.no_grad():
        alone(torch.tensor([TOKENS]), use_cache=False)
    trace = opened(family).trace(TOKENS)
    assert len(found) == 6
    for site, expected in found.items():
        assert np.array_equal(trace[site].array.reshape(expected.shape), expected), site


def test_what_only_the_kernel_knows_is_a_gap_with_its_reason(case):
    family, kernel, model, _ = case
    gaps = model.session.gaps
    assert set(gaps) | set(model.session.offers) == set(model.equations.steps)
    assert not set(gaps) & set(model.session.offers)
    if (
        kernel == "sdpa" and family != "falcon"
    ):  # whose one head of keys is spread, for which PyTorch takes the plain way
        assert all(gaps[f"blocks.{layer}.attn.pattern"].kind == "upstream" for layer in range(len(model.spec.blocks)))
        assert "eager" in gaps["blocks.0.attn.pattern"].reason


def test_pattern_is_captured_under_eager_attention(opened):
    for family in ("llama", "gpt_oss", "gptj", "bloom", "gpt_neo"):
        assert opened(family).session.offers["blocks.1.attn.pattern"].provenance.kind == "captured", family


def test_a_query_that_was_scaled_before_the_kernel_is_given_back_its_scale(opened):
    """OPT multiplies q by the scale as soon as it is made: q is what it was before, and the scores know the scale."""
    model = opened("opt")
    assert model.spec.blocks[0].attention.scale == 0.25
    trace = model.trace(TOKENS, capture=["blocks.0.attn.q", "blocks.0.attn.rot_q", "blocks.0.attn.scores"])
    assert np.array_equal(trace["blocks.0.attn.q"].array, trace["blocks.0.attn.rot_q"].array)
    assert "violated" not in {error.status for error in trace.verify()}


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_moe"])
def test_a_dense_layer_among_layers_of_experts_hands_out_its_own_sites(family, tmp_path):
    import llmtrace
    from llmtrace.testing.tiny import write_tiny

    write_tiny(family, tmp_path, mlp_only_layers=[1])
    with llmtrace.open(tmp_path, backend="torch", preset="exact") as model:
        dense = {f"blocks.1.mlp.{name}" for name in ("pre", "pre_linear", "post", "out")}
        assert dense <= set(model.session.offers)
        assert {error.status for error in model.trace(TOKENS).verify()} == {"holds"}


@pytest.mark.parametrize(("family", "heads_first"), [("gemma3_text", True), ("exaone4", True), ("qwen3", False)])
def test_a_norm_per_head_is_handed_out_in_whichever_order_its_module_sees_heads_and_tokens(
    family, heads_first, opened, bare
):
    """The order is told by hand here, and kept by the module's own output."""
    found: dict[str, torch.Tensor] = {}
    alone = bare(family)
    for name, module in alone.named_modules():
        if name.endswith(("layers.1.self_attn.q_norm", "layers.1.self_attn.k_norm")):
            module.register_forward_hook(lambda module, args, output, name=name: found.update({name[-6:]: output[0]}))
    with torch.no_grad():
        alone(torch.tensor([TOKENS]), use_cache=False)
    model = opened(family)
    trace = model.trace(TOKENS)
    for norm, heads in (("q_norm", 4), ("k_norm", 2)):
        site, expected = f"blocks.1.attn.{norm}.out", found[norm]
        expected = expected.transpose(0, 1) if heads_first else expected
        assert site in model.session.offers and expected.shape[:2] == (len(TOKENS), heads)
        assert np.array_equal(trace[site].array, expected.numpy())
