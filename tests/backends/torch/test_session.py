"""A run hands over what was asked for, nothing else, and leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmtrace import select
from llmtrace.errors import LLMTraceError
from llmtrace.protocol import Request, SupportsMany, SupportsWeights
from llmtrace.selection import Pick, cut

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]


class Journal:
    """Notes what comes, in order, and may fail at a site."""

    def __init__(self, fail_at: str = "") -> None:
        self.events: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.fail_at = fail_at

    def signal(self, site, array):
        self.events.append(site)
        self.arrays[site] = array
        if site == self.fail_at:
            raise KeyError("the observer's own exception")

    def layer_done(self, layer):
        self.events.append(f"done {layer}")


def state(session):
    """All that a run might leave behind."""
    modules = list(session.model.modules())
    return (
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules], [m.training for m in modules],
        session.model.config._attn_implementation, torch.is_grad_enabled(),
        {name: tensor.clone() for name, tensor in session.model.state_dict().items()},
    )  # fmt: skip


def same(a, b):
    return a[:4] == b[:4] and all(torch.equal(a[4][name], b[4][name]) for name in a[4])


def everything(session, steps, tokens):
    return Request(tuple(tokens), {site: cut(steps[site], Pick("**"), len(tokens)) for site in session.offers})


@pytest.mark.parametrize(
    ("family", "attention"), [("llama", "eager"), ("llama", "sdpa"), ("gptj", "eager"), ("mixtral", "sdpa")]
)
def test_the_model_is_left_as_found_after_a_run_and_after_an_exception_of_the_observer(opened, family, attention):
    model = opened(family, attention=attention)
    before = state(model.session)
    request = everything(model.session, model.equations.steps, TOKENS)
    model.session.run(request, Journal())
    assert same(before, state(model.session))
    for site in ("blocks.1.resid_pre", "blocks.1.attn.rot_q", "blocks.2.mlp.out", "logits"):
        if site in model.session.offers:
            with pytest.raises(KeyError, match="the observer's own exception"):
                model.session.run(request, Journal(fail_at=site))
            assert same(before, state(model.session)), site
    after = Journal()
    model.session.run(request, after)
    assert np.isfinite(after.arrays["logits"]).all()


def test_signals_come_once_in_layer_order_with_the_ends_outside(opened):
    model, journal = opened("llama"), Journal()
    model.session.run(everything(model.session, model.equations.steps, TOKENS), journal)
    events = journal.events
    assert sorted(event for event in events if not event.startswith("done")) == sorted(model.session.offers)
    assert [event for event in events if event.startswith("done")] == ["done 0", "done 1", "done 2"]
    for layer in range(3):
        inside = [place for place, event in enumerate(events) if event.startswith(f"blocks.{layer}.")]
        assert max(inside) < events.index(f"done {layer}")
        assert not layer or min(inside) > events.index(f"done {layer - 1}")
    assert events[0] == "embed" and events[-1] == "logits"


def test_only_what_was_selected_is_handed_over_cut_and_without_a_copy(opened):
    model = opened("llama", attention="sdpa")
    steps = model.equations.steps
    cuts = {
        "blocks.1.attn.q": cut(steps["blocks.1.attn.q"], Pick("", heads=[2], tokens=[-1]), 12),
        "blocks.1.mlp.post": cut(steps["blocks.1.mlp.post"], Pick("", channels=[3, 4, 5]), 12),
        "logits": cut(steps["logits"], Pick("", tokens=[-1]), 12),
    }
    journal = Journal()
    model.session.run(Request(tuple(TOKENS), cuts), journal)
    assert [event for event in journal.events if not event.startswith("done")] == list(cuts)
    assert {site: array.shape for site, array in journal.arrays.items()} == {
        "blocks.1.attn.q": (1, 1, 24), "blocks.1.mlp.post": (12, 3), "logits": (1, 97),
    }  # fmt: skip
    for array in journal.arrays.values():
        assert not array.flags.writeable and array.base is not None
    whole = model.trace(TOKENS)
    assert np.array_equal(journal.arrays["blocks.1.attn.q"], whole["blocks.1.attn.q"].array[-1:, 2:3])
    assert np.array_equal(journal.arrays["blocks.1.mlp.post"], whole["blocks.1.mlp.post"].array[:, 3:6])


def test_a_pattern_is_cut_by_query_and_never_by_key(opened):
    model = opened("llama")
    whole = model.trace(TOKENS)["blocks.0.attn.pattern"].array
    part = model.trace(TOKENS, capture=select("blocks.0.attn.pattern", heads=[1], tokens=[-1, 0]))[
        "blocks.0.attn.pattern"
    ].array
    assert np.array_equal(part, whole[[1]][:, [11, 0]])


def test_no_kernel_is_exchanged_by_looking(opened):
    model, during = opened("llama", attention="sdpa"), []

    class Spy(Journal):
        def signal(self, site, array):
            during.append(model.session.model.config._attn_implementation)

    steps = model.equations.steps
    for site in ("blocks.0.attn.z", "blocks.0.attn.rot_q"):
        model.session.run(Request(tuple(TOKENS), {site: cut(steps[site], Pick("**"), 12)}), Spy())
    assert during == ["sdpa", "sdpa"]


def test_two_sessions_know_nothing_of_each_other(opened):
    first, second = opened("llama", attention="sdpa"), opened("qwen3", attention="eager")
    alone = (first.trace(TOKENS), second.trace(TOKENS[:7]))

    class Nested(Journal):
        def signal(self, site, array):
            super().signal(site, array)
            if site == "blocks.1.attn.rot_q":
                inner.append(second.trace(TOKENS[:7]))

    inner = []
    outer = Nested()
    request = everything(first.session, first.equations.steps, TOKENS)
    kept = {}
    outer_signal = outer.signal
    outer.signal = lambda site, array: (outer_signal(site, array), kept.update({site: array.copy()}))
    first.session.run(request, outer)
    assert all(np.array_equal(kept[site], alone[0][site].array) for site in kept)
    assert all(np.array_equal(inner[0][site].array, alone[1][site].array) for site in second.session.offers)


def test_capabilities_are_those_of_the_protocol_and_reading_the_weights_is_not_needed_to_know(opened):
    session = opened("llama").session
    assert isinstance(session, SupportsWeights) and isinstance(session, SupportsMany)
    assert session.stored["blocks.0.attn.W_Q"] == "float32"
    assert session.weights["blocks.0.attn.W_Q"].shape == (4, 64, 24)


def test_weights_are_the_files_and_not_the_running_models(opened):
    model = opened("llama")
    kept = model.weights["blocks.1.attn.W_Q"].copy()
    with torch.no_grad():
        model.session.model.get_parameter("model.layers.1.self_attn.q_proj.weight").zero_()
    assert np.array_equal(model.weights["blocks.1.attn.W_Q"], kept)


def test_a_closed_session_says_so_and_closes_twice(opened):
    model = opened("llama")
    model.close()
    model.close()
    with pytest.raises(LLMTraceError, match="closed"):
        model.trace(TOKENS)
