"""What is wrong is seen: a signal that is scaled, shifted, or of another head, layer or branch; a look that changes a run; a check that checks nothing."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from attrs import evolve

from llmtrace.model import Model
from llmtrace.trace import Trace
from llmtrace_torch import open as opening
from llmtrace_torch.open import open_model
from llmtrace_torch.options import TorchOptions
from llmtrace_torch.tape import session
from tests.benchmarks.coverage import measure as measuring
from tests.benchmarks.coverage.held import apart
from tests.benchmarks.coverage.measure import PROMPT, measure
from tests.benchmarks.coverage.page import alike
from tests.benchmarks.coverage.tiny import tiny


@pytest.fixture(autouse=True)
def one_thread():
    """As when types are measured; models this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def altered(change, monkeypatch):
    """Sessions that hand out what `change` makes of a site's name and its signal, or the signal where that is None."""

    class Wrong(session.Run):
        def _give(self, one, place, array):
            other = change(place.name, array)
            super()._give(one, place, array if other is None else np.ascontiguousarray(other, array.dtype))

    monkeypatch.setattr(session, "Run", Wrong)


def right(kind):
    """All signals of a type as its model computes them, by site."""
    with TemporaryDirectory() as path:
        measuring._saved(kind, path)
        with Model(open_model(path, TorchOptions(attention="eager"))) as opened:
            trace = opened.trace(PROMPT)
            return {site: np.array(trace[site].array) for site in trace.equations.steps if site in trace}


@pytest.mark.parametrize(
    ("site", "lost", "structural"),
    [
        ("blocks.1.resid_pre", "`blocks.1.resid_pre` is not what transformers computes", False),
        ("blocks.0.attn.pattern", "`blocks.0.attn.pattern` is not what transformers computes", False),
        ("blocks.0.attn.z", "`blocks.0.attn.z` is not what transformers computes", False),
        ("blocks.0.attn.z_post", "`blocks.0.attn.z_post` is nothing that a matrix", False),
        ("blocks.1.mlp_out", "`blocks.1.mlp_out` does not follow", False),
        ("ln_final.out", "`ln_final.out` is not what transformers computes", False),
        ("logits", "the logits are not the same bit for bit", False),
        ("blocks.1.mlp.post", "`blocks.1.mlp.post` does not follow", True),
    ],
)
def test_a_wrong_signal_is_seen(site, lost, structural, monkeypatch):
    altered(lambda name, array: array * np.float32(1.01) if name == site else None, monkeypatch)
    found = measure("gpt_neox")
    assert (found.structural, found.full) == (structural, False)
    assert any(each.startswith(lost) for each in found.why), found.why


@pytest.mark.parametrize(
    ("kind", "instead", "lost"),
    [
        ("bloom", {"blocks.0.attn.pattern": "blocks.1.attn.pattern"}, "`blocks.0.attn.pattern` is not what"),
        ("gpt2", {f"blocks.0.attn.{z}": f"blocks.1.attn.{z}" for z in ("z", "z_post")}, "`blocks.0.attn.z_post` is nothing"),
        ("gpt2", {"blocks.0.resid_pre": "blocks.1.resid_pre"}, "`blocks.0.resid_pre` is not what"),
        ("gpt2", {"blocks.0.resid_mid": "blocks.1.resid_mid"}, "`blocks.0.resid_mid` is nothing that passes in its"),
        ("gpt2", {f"blocks.{n}.resid_post": f"blocks.{n}.resid_pre" for n in (0, 1)}, "`blocks.0.resid_post` is not what"),
        ("gpt2", {"blocks.1.resid_post": "ln_final.out"}, "`blocks.1.resid_post` is nothing that passes in its layer"),
        ("gpt2", {"ln_final.out": "blocks.1.resid_post"}, "`ln_final.out` is not what transformers computes"),
        ("llama", {"embed": "blocks.1.resid_pre"}, "`embed` is nothing that is made before the first layer"),
        ("gpt_neox", {"blocks.0.attn_out": "blocks.0.mlp_out", "blocks.0.mlp_out": "blocks.0.attn_out"}, "`blocks.0.attn_out` does"),
        ("mamba", {"blocks.0.mixer_out": "blocks.1.mixer_out"}, "`blocks.0.mixer_out` is nothing that a module makes"),
        ("mamba", {"blocks.1.resid_pre": "blocks.1.resid_post"}, "`blocks.1.resid_pre` is not what"),
        ("longcat_flash", {"blocks.1.resid_pre": "blocks.2.resid_pre", "blocks.0.resid_post": "blocks.2.resid_pre"},
         "`blocks.1.resid_mid` passes no later than `blocks.1.resid_pre`"),
    ],
)  # fmt: skip
def test_a_signal_of_another_place_is_seen(kind, instead, lost, monkeypatch):
    signals = right(kind)
    altered(lambda name, _array: signals[instead[name]] if name in instead else None, monkeypatch)
    found = measure(kind)
    assert not found.structural
    assert any(each.startswith(lost) for each in found.why), found.why


def test_what_the_norm_of_a_layers_end_reads_is_held_too(monkeypatch):
    stream = ("blocks.0.resid_post", "blocks.1.resid_pre")  # of which the norm makes the same at any size
    altered(lambda name, array: 2 * array if name in stream else None, monkeypatch)
    found = measure("openai-gpt")
    assert not found.structural
    assert {f"`{site}` is nothing that passes in its layer" for site in stream} <= set(found.why)


@pytest.mark.parametrize("site", ["blocks.0.attn.z", "blocks.1.attn.z_post"])
def test_heads_in_another_order_are_seen(site, monkeypatch):
    altered(lambda name, array: np.roll(array, 1, axis=1) if name == site else None, monkeypatch)
    assert not measure("gpt2").structural


def test_one_token_that_is_a_little_off_is_seen(monkeypatch):
    factor = np.ones((len(PROMPT), 1), np.float32)
    factor[5] += 3e-5  # of the whole signal less than what is equal
    altered(lambda name, array: array * factor if name == "blocks.1.resid_pre" else None, monkeypatch)
    why = measure("gpt2").why
    assert any(each.startswith("`blocks.1.resid_pre` is not what") for each in why), why


def test_logits_that_change_where_nothing_else_is_captured_are_seen(monkeypatch):
    class Wrong(session.Run):
        def _give(self, one, place, array):
            alone = len(one.request.cuts) == 1
            super()._give(one, place, np.nextafter(array, np.float32(np.inf)) if alone else array)

    monkeypatch.setattr(session, "Run", Wrong)
    assert measure("gpt2").why[0] == "the logits are not the same bit for bit when they alone are captured"


def test_a_look_that_changes_what_passes_is_seen(monkeypatch):
    class Wrong(session.Run):
        def hand(self, tap, tensor):
            super().hand(tap, tensor)
            return tensor * (1 + 2e-7) if tensor.is_floating_point() else None

    monkeypatch.setattr(session, "Run", Wrong)
    assert measure("gpt2").why[0] == "the logits are not the same bit for bit when everything is captured"


@pytest.mark.parametrize("verdicts", [[], ["unchecked"]])
def test_equations_that_judge_nothing_make_no_type_full(verdicts, monkeypatch):
    judged = Trace.verify
    monkeypatch.setattr(
        Trace, "verify", lambda trace: [evolve(each, status=said) for each in judged(trace) for said in verdicts]
    )
    found = measure("gpt2")
    assert found.structural
    assert not found.full
    assert "`blocks.0.mlp.post` is held by no equation" in found.why


def test_a_signal_of_zeros_tells_nothing(monkeypatch):
    weights = tiny("llama").state_dict()

    def zero(kind, attention=None):
        model = tiny(kind, attention)
        model.load_state_dict({name: each * ("gate_proj" not in name) for name, each in weights.items()})
        return model

    monkeypatch.setattr(measuring, "tiny", zero)
    found = measure("llama")
    assert not found.full
    assert "`blocks.0.mlp.post` is zero throughout" in found.why


def test_a_model_that_is_not_what_its_file_says_is_seen(monkeypatch):
    load = opening.load

    def other(*given):
        model, notes = load(*given)
        model.transformer.h[1].mlp.c_fc.weight.data.mul_(1.01)
        return model, notes

    monkeypatch.setattr(opening, "load", other)
    found = measure("gpt2")
    assert not found.full
    assert "`blocks.L.mlp` is opaque" in " ".join(alike(found.why))
    assert any(each.startswith("`logits` is not what transformers computes") for each in found.why)


def test_weights_that_are_not_read_from_the_file_are_named():
    assert measure("gpt2").unfiled == ()
    assert set(measure("mixtral").unfiled) == {f"blocks.L.mlp.W_{name}" for name in ("gate", "in", "out")}


def test_another_kernel_than_was_asked_for_is_seen(monkeypatch):
    monkeypatch.setattr(
        measuring, "open_model", lambda path, _options: open_model(path, TorchOptions(attention="eager"))
    )
    assert measure("gpt2").why[0] == "its attention is eager where sdpa was asked for"


def test_numbers_that_tell_nothing_are_never_equal():
    some = np.ones((2, 3), np.float32)
    assert apart(some, some) == 0
    assert apart(0 * some, 0 * some) == np.inf
    assert apart(np.nan * some, np.nan * some) == np.inf
    assert apart(some[:1], some) == np.inf
    assert apart(np.array([[1.0, 0.0], [0.0, 0.1]]), np.array([[1.0, 0.0], [0.0, 0.0]])) == np.inf
