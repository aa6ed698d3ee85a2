"""Law 7. Signals stream: a metric over 30 layers needs the memory of one."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.laws.programs import run

WIDTH, HEADS, TOKENS, VOCAB = 32, 4, 320, 50


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A Llama of some layers, written with nothing of ours."""

    def write(layers):
        folder = tmp_path_factory.mktemp(f"layers{layers}")
        rng = np.random.default_rng(0)
        shapes = {
            "model.embed_tokens.weight": (VOCAB, WIDTH),
            "lm_head.weight": (VOCAB, WIDTH),
            "model.norm.weight": (WIDTH,),
        }
        for layer in range(layers):
            at = f"model.layers.{layer}."
            shapes |= {f"{at}self_attn.{which}_proj.weight": (WIDTH, WIDTH) for which in "qkvo"}
            shapes |= {f"{at}mlp.{which}_proj.weight": (64, WIDTH) for which in ("gate", "up")} | {
                f"{at}mlp.down_proj.weight": (WIDTH, 64)
            }
            shapes |= {f"{at}{norm}_layernorm.weight": (WIDTH,) for norm in ("input", "post_attention")}
        save_file(
            {name: (0.2 * rng.normal(size=shape) + (len(shape) == 1)).astype(np.float32) for name, shape in shapes.items()},
            folder / "model.safetensors", {"format": "pt"},
        )  # fmt: skip
        config = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": 64,
            "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": False,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return write


def peak(folder, work):
    """Peak resident memory in megabytes of a fresh interpreter that opens a checkpoint and does something with it."""
    found = run(
        f"""
    import json, re, llmtrace
    with llmtrace.open({folder!r}, backend="reference", check=False) as model:
        ids = [(7 * place) % {VOCAB} for place in range({TOKENS})]
        {work}
    with open("/proc/self/status") as status:  # getrusage would count what the parent had when it forked
        print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) / 1024)
    """,
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )
    return float(found)


def test_a_fold_over_thirty_layers_peaks_where_one_over_six_does(checkpoint):
    work = "model.influence(ids, method='alti', target=3)"
    small, large = peak(checkpoint(6), work), peak(checkpoint(30), work)
    assert large <= 1.3 * small, f"{small:.0f} MB for 6 layers, {large:.0f} MB for 30"


def test_the_measure_sees_what_a_recording_of_all_layers_keeps(checkpoint):
    """Without streaming the bound would not hold: a recorder of the same patterns is far over it."""
    work = "model.trace(ids, capture='blocks.*.attn.{scores,pattern}')"
    assert peak(checkpoint(30), work) > 1.3 * peak(checkpoint(6), work)


def test_verifying_a_model_streams_too(checkpoint):
    work = "model.verify(ids)"
    small, large = peak(checkpoint(6), work), peak(checkpoint(30), work)
    assert large <= 1.3 * small, f"{small:.0f} MB for 6 layers, {large:.0f} MB for 30"
