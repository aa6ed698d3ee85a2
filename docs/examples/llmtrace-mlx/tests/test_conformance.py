"""The MLX backend, held to LLMTrace's conformance kit, and to the equations where the kit does not look."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmtrace
from llmtrace.errors import BackendError, ModelOpenError
from llmtrace.testing import tiny_model
from llmtrace_mlx.conformance import MlxConformance


class TestMlx(MlxConformance):
    """The kit."""


def stored(family, directory, name=str, dtype="float32"):
    """A tiny model whose tensors are stored under other names, or in another type."""
    tiny = tiny_model(family, directory)
    file = directory / "model.safetensors"
    save_file({name(key): tensor.astype(dtype) for key, tensor in load_file(file).items()}, file)
    return tiny


def test_gpt2_as_it_was_published_holds(tmp_path):
    tiny = stored("gpt2", tmp_path, lambda key: key.removeprefix("transformer."))
    with llmtrace.open(tmp_path, backend="mlx", preset="exact") as model:
        errors = model.verify(tiny.tokens)
    assert [error.site for error in errors if error.status == "violated"] == []
    assert sum(error.status == "holds" for error in errors) > 40


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, "float16"])
def test_sixteen_bits_are_handed_over_as_they_are(tmp_path, dtype):
    tiny = stored("llama", tmp_path, dtype=dtype)
    with llmtrace.open(tmp_path, backend="mlx") as model:
        assert {error.status for error in model.verify(tiny.tokens)} == {"holds"}
        assert model.trace(tiny.tokens)["blocks.1.attn.q"].dtype == np.dtype(dtype)


def test_a_kernel_that_mlx_lacks_is_named_when_the_model_is_opened(tmp_path):
    stored("mixtral", tmp_path, dtype="float16")
    with pytest.raises(ModelOpenError, match=r"GatherMM.*float32"):
        llmtrace.open(tmp_path, backend="mlx", options={"device": "cpu"})


def test_the_modules_are_what_they_were(tmp_path):
    tiny = stored("llama", tmp_path)
    with llmtrace.open(tmp_path, backend="mlx") as model:
        modules = model.session._modules
        before = {name: type(module) for name, module in modules.items()}
        model.trace(tiny.tokens)
        assert {name: type(module) for name, module in modules.items()} == before
        assert not any(kind.__module__.startswith("llmtrace") for kind in before.values())


def test_a_session_runs_on_another_thread_than_the_one_that_opened_it(tmp_path):
    """MLX computes an array only on the thread that asked for it: nothing may be left for later."""
    tiny = stored("llama", tmp_path, dtype="float16")
    with llmtrace.open(tmp_path, backend="mlx", preset="exact", check=False) as model, ThreadPoolExecutor(1) as pool:
        there = pool.submit(model.trace, tiny.tokens).result()["logits"].array
        assert np.array_equal(there, model.trace(tiny.tokens)["logits"].array)


def test_what_nobody_asks_for_is_not_computed(tmp_path):
    """A matrix of the second block can be computed on another thread only; what comes before it does not notice."""
    tiny = stored("llama", tmp_path)
    with llmtrace.open(tmp_path, backend="mlx") as model, ThreadPoolExecutor(1) as pool:
        down = model.session._modules["model.layers.1.mlp.down_proj"]
        down.weight = pool.submit(lambda: 1 * down.weight).result()
        model.trace(tiny.tokens, capture="blocks.1.mlp.post")
        with pytest.raises(BackendError, match="thread"):
            model.trace(tiny.tokens, capture="logits")
