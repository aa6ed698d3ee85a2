"""TransformerLens's own caches of tiny models, as it records them by default and without processing.

It brings old versions of what the other tests need, so it is better installed in an environment of its own, such as the one that
`python -m tests.benchmarks.performance --cache DIR` makes: `DIR/transformer-lens/bin/python -m pytest tests/importing`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import llmtrace
from llmtrace.schema.steps import any_layer
from llmtrace.testing.tiny import write_tiny

lens: Any = pytest.importorskip("transformer_lens", reason="pip install transformer-lens")
torch = pytest.importorskip("torch")

IDS = (3, 1, 4, 1, 5, 9, 2, 6)
TINY = {
    "gpt2": {"scale_attn_by_inverse_layer_idx": False},  # which TransformerLens does not know
    "llama": {"attention_bias": False, "mlp_bias": False},
}
STREAM = {"blocks.L.resid_pre", "blocks.L.resid_mid", "blocks.L.resid_post"}
FOLDED = {"blocks.L.ln1.out", "blocks.L.ln2.out", "ln_final.out"}


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request, tmp_path_factory) -> Path:
    """A tiny model of a family."""
    directory = tmp_path_factory.mktemp("model") / request.param
    write_tiny(request.param, directory, **TINY[request.param])
    return directory


def bridged(checkpoint: Path, dtype: Any = torch.float32) -> Any:
    """The model in TransformerLens's bridge, which wants a tokenizer with a name."""
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    place = checkpoint.parent / "tokenizer"
    words = Tokenizer(models.WordLevel({str(id): id for id in range(97)}, unk_token="0"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="0", bos_token="0", eos_token="0", pad_token="0"
    ).save_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager").eval()
    return TransformerBridge.boot_transformers(
        str(checkpoint), hf_model=model, tokenizer=AutoTokenizer.from_pretrained(place), dtype=dtype, device="cpu"
    )


def cache_of(model: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(torch.tensor([IDS]))[1]


def kinds(sites) -> set[str]:
    return {any_layer(site) for site in sites}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_cache_without_processing_is_what_the_model_computes(checkpoint, dtype):
    cache = cache_of(bridged(checkpoint, dtype))
    found = llmtrace.import_dump(cache, f"reference:{checkpoint}")
    assert found.trace.ids == IDS
    assert (found.violated, found.inherited) == ([], ())
    assert len(found.verdicts.judged) == len(found.trace) > 70
    stream = found.trace["blocks.1.resid_post"].array
    assert (stream.astype("float32") == cache["blocks.1.hook_resid_post"][0].float().numpy()).all()


def test_a_cache_says_what_it_says_in_a_file(checkpoint, tmp_path):
    from safetensors.torch import save_file

    cache = cache_of(bridged(checkpoint))
    save_file({name: value.contiguous().clone() for name, value in cache.items()}, tmp_path / "dump.safetensors")
    one, two = (
        llmtrace.import_dump(dump, f"reference:{checkpoint}").trace for dump in (cache, tmp_path / "dump.safetensors")
    )
    assert list(one) == list(two)
    assert all(one[site].array.tobytes() == two[site].array.tobytes() for site in one)


def test_a_cache_of_default_processing_names_the_signals_that_are_not_the_models_own(checkpoint):
    """What is folded, centred and taken out is what TransformerLens's `weight_processing.py` says of each kind of norm."""
    bridge = bridged(checkpoint)
    bridge.enable_compatibility_mode()
    found = llmtrace.import_dump(cache_of(bridge), f"reference:{checkpoint}")
    reasons = {any_layer(each.site): each.reason for each in found.violated}
    own = {site for site, reason in reasons.items() if reason.endswith("the value itself is")}
    assert {site for site, reason in reasons.items() if "fold_ln" in reason} == FOLDED
    assert {site for site, reason in reasons.items() if "center_unembed" in reason} == {"logits"}
    if checkpoint.name == "gpt2":
        centred = {site for site, reason in reasons.items() if "center_writing_weights" in reason}
        assert centred == {"embed", "pos_embed", "blocks.L.attn.out", "blocks.L.mlp.out"}
        assert {site for site, reason in reasons.items() if "fold_value_biases" in reason} == {"blocks.L.attn.v"}
        assert own == {"blocks.L.attn.q", "blocks.L.attn.k", "blocks.L.mlp.pre"}
        assert kinds(found.inherited) > STREAM
    else:
        assert own == {
            "blocks.L.attn.q",
            "blocks.L.attn.k",
            "blocks.L.attn.v",
            "blocks.L.mlp.pre",
            "blocks.L.mlp.pre_linear",
        }
        assert found.inherited == ()
    assert "" not in reasons.values()


@pytest.mark.skipif(find_spec("transformer_lens.HookedTransformer") is None, reason="pip install 'transformer-lens<4'")
@pytest.mark.parametrize("processed", [False, True], ids=["plain", "processed"])
def test_caches_of_hooked_transformers_are_read_too(checkpoint, processed):
    from transformer_lens.pretrained import weight_conversions as convert  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    config = loaded.config
    shared = {"n_layers": 3, "d_model": 64, "n_ctx": 64, "n_heads": 4, "d_vocab": 97, "device": "cpu"}
    if checkpoint.name == "gpt2":
        own = lens.HookedTransformerConfig(
            d_head=16, act_fn="gelu_new", normalization_type="LN", eps=config.layer_norm_epsilon, original_architecture="GPT2LMHeadModel", **shared,
        )  # fmt: skip
        weights = convert.convert_gpt2_weights(loaded, own)
    else:
        own = lens.HookedTransformerConfig(
            d_head=24, n_key_value_heads=2, d_mlp=96, act_fn="silu", normalization_type="RMS", eps=config.rms_norm_eps, gated_mlp=True,
            positional_embedding_type="rotary", rotary_dim=24, rotary_base=10000, rotary_adjacent_pairs=False, final_rms=True,
            original_architecture="LlamaForCausalLM", **shared,
        )  # fmt: skip
        weights = convert.convert_llama_weights(loaded, own)
    with pytest.warns(DeprecationWarning, match="HookedTransformer"):
        model = lens.HookedTransformer(own)
    model.load_and_process_state_dict(
        weights,
        fold_ln=processed,
        center_writing_weights=processed,
        center_unembed=processed,
        fold_value_biases=processed,
    )
    found = llmtrace.import_dump(cache_of(model), f"reference:{checkpoint}", IDS)
    if not processed:
        assert (found.violated, found.inherited, found.left_out) == ([], (), ())
    elif checkpoint.name == "gpt2":
        assert kinds(each.site for each in found.violated) == {
            "embed", "pos_embed", "blocks.L.attn.v", "blocks.L.attn_out", "blocks.L.mlp_out", "ln_final.out", "logits",
        }  # fmt: skip
        assert kinds(found.inherited) == {*STREAM, "blocks.L.attn.z"}
    else:
        assert kinds(each.site for each in found.violated) == {"ln_final.out", "logits"}
    assert all(each.reason for each in found.violated)
