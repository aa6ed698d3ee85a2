"""What is kept is what passed, whether it was copied or not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from attrs import evolve

from llmtrace.errors import BackendError
from llmtrace.model import Model
from llmtrace.selection import select
from llmtrace_torch.tape.found import find
from llmtrace_torch.tape.session import TapedSession
from tests.backends.torch.tape.test_found import INFO

IDS = (3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 1, 4)


class Copies:
    """Copies each signal as it comes."""

    def __init__(self) -> None:
        self.seen: dict[str, np.ndarray] = {}

    def signal(self, site, array) -> None:
        self.seen[site] = array.copy()

    def layer_done(self, layer) -> None:
        pass


def opened(model, family, change=lambda found: found) -> Model:
    return Model(TapedSession(model, change(find(model, family)), INFO, None))


@pytest.mark.parametrize("family", ["llama", "olmo", "gpt2", "gemma2", "mixtral", "mpt"])
def test_a_trace_holds_what_passed(loaded, family):
    model, copies = opened(loaded(family), family), Copies()
    model.stream(IDS, copies)
    trace = model.trace(IDS)
    model.trace(IDS[::-1])  # memory that was let go is used again
    assert copies.seen.keys() == trace.signals.keys()
    for site, array in copies.seen.items():
        np.testing.assert_array_equal(trace[site].array, array, err_msg=site)


def test_what_the_model_made_is_kept_once_and_not_copied(loaded):
    trace = opened(loaded("llama"), "llama").trace(IDS)
    assert np.shares_memory(trace["blocks.0.resid_post"].array, trace["blocks.1.resid_pre"].array)
    assert not trace["blocks.0.resid_post"].array.flags.writeable


def spoil(module, args):
    """Write in place what stands there already: of no effect but on PyTorch's count."""
    args[0].mul_(1.0)


def test_what_the_model_writes_into_once_it_was_read_does_not_last(loaded):
    bare, made = loaded("llama"), []
    layer = bare.model.layers[1]
    layer.input_layernorm.register_forward_hook(lambda module, args, output: made.append(output))
    layer.mlp.register_forward_pre_hook(lambda module, args: spoil(module, [made.pop()]))
    model = opened(bare, "llama")
    assert "blocks.1.ln1.out" not in model.session.lasting
    assert {"blocks.0.ln1.out", "blocks.1.ln2.out"} <= model.session.lasting
    assert model.trace(IDS)["blocks.1.ln1.out"].array.flags.owndata


def test_a_little_of_much_is_copied(loaded):
    model = opened(loaded("llama"), "llama")
    row = model.trace(IDS, capture=select("blocks.1.resid_post", tokens=[-1]))["blocks.1.resid_post"].array
    assert row.flags.owndata


def test_writing_into_what_was_said_to_last_is_an_error(loaded):
    bare = loaded("llama")
    model = opened(bare, "llama")
    hook = bare.model.layers[1].input_layernorm.register_forward_pre_hook(spoil)
    with pytest.raises(BackendError, match=r"wrote into blocks\.\d\.resid"):
        model.trace(IDS)
    model.stream(IDS, Copies())  # which keeps nothing of the model's
    hook.remove()
    model.trace(IDS)


def test_a_session_whose_sites_do_not_last_gives_the_same_trace(loaded):
    lasting = opened(loaded("llama"), "llama").trace(IDS)
    copied = opened(loaded("llama"), "llama", lambda found: evolve(found, lasting=frozenset())).trace(IDS)
    for site in lasting.signals:
        np.testing.assert_array_equal(lasting[site].array, copied[site].array)
