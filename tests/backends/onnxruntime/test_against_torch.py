"""Signals of exported graphs are those of their checkpoints, as PyTorch computes them; and asking for signals leaves logits alone."""

from __future__ import annotations

import numpy as np
import pytest

for module in ("torch", "transformers", "onnx", "onnxruntime", "llmtrace_torch", "llmtrace_onnxruntime"):
    pytest.importorskip(module)

import llmtrace
from llmtrace.protocol import Request
from llmtrace.selection import Pick, cut
from tests.backends.onnxruntime.exports.architectures import PROMPT
from tests.backends.onnxruntime.opening import opaque, open_graph, same
from tests.backends.onnxruntime.reading.opened import error

ROUNDING = 1e-5
"""Relative, of a whole signal: both compute in float32."""
CELLS = [
    ("torchscript", "llama"), ("torchscript", "gpt2"), ("torchscript", "gemma2"), ("torchscript", "falcon"),
    ("torchscript", "gpt_neox"), ("torchscript", "mistral"), ("torchscript", "qwen3"), ("torchscript", "phi3"),
    ("dynamo-18", "llama"), ("dynamo-18", "gpt2"),
]  # fmt: skip
"""Exporter and architecture."""
SLOW = [
    ("torchscript", name)
    for name in (
        "llama-tied", "llama-biased", "llama-yarn", "qwen2", "gemma", "gpt_bigcode", "gptj", "codegen", "phi", "olmo2",
        "falcon-two-norms", "bloom", "mpt", "opt", "starcoder2", "stablelm-parallel", "granite", "nemotron",
        "mixtral", "gpt_oss",
    )
] + [("dynamo-18", "gemma2"), ("dynamo-18", "falcon")]  # fmt: skip


SHARED = (
    "resid_pre", "resid_post", "attn_out", "mlp_out", "attn.q", "attn.k", "attn.v", "attn.rot_q", "attn.rot_k", "attn.scores",
    "attn.pattern", "attn.z_post", "attn.out", "mlp.out",
)  # fmt: skip
"""Of every block; MLPs of different kinds have others besides."""


@pytest.fixture
def checkpoint(cell):
    """The checkpoint that a graph was exported from."""
    return lambda exporter, architecture: cell(exporter, architecture).parents[2] / "checkpoints" / architecture


def handed_over(model, sites, tokens=PROMPT):
    """The signals that the runtime itself gives, by one run of the session."""
    got = {}

    class Keep:
        def signal(self, site, array):
            got[site] = np.array(array)

        def layer_done(self, layer):
            pass

    steps = model.equations.steps
    cuts = {site: cut(steps[site], Pick(site), len(tokens)) for site in sites}
    model.session.run(Request(tuple(tokens), cuts), Keep())
    return got


@pytest.mark.parametrize(
    ("exporter", "architecture"), [*CELLS, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_every_signal_that_both_have_is_the_same(exporter, architecture, open_cell, checkpoint):
    if exporter.startswith("dynamo"):
        pytest.importorskip("onnxscript")
    model = open_cell(exporter, architecture)
    assert not opaque(model.spec), model.info.notes
    ours = handed_over(model, model.session.offers)
    with llmtrace.open(checkpoint(exporter, architecture), backend="torch", preset="exact") as torchs:
        theirs = torchs.trace(list(PROMPT))  # what its modules do not hand out is derived
        weights = dict(torchs.weights)
    # ALiBi is counted from another token there: a row constant that no softmax sees
    apart = {"attn.scores"} if model.spec.blocks[1].attention.slopes else set()
    shared = [site for site in SHARED if site not in apart]
    assert {"embed", "logits", "ln_final.out", *(f"blocks.1.{site}" for site in shared)} <= set(ours) & set(
        theirs.signals
    )
    off = {site: error(ours[site], theirs[site].array) for site in ours if site in theirs.signals}
    assert {site: each for site, each in off.items() if each > ROUNDING} == {}
    assert set(weights) <= {*model.weights}
    assert [name for name, array in weights.items() if not np.array_equal(array, model.weights[name])] == []


@pytest.mark.parametrize(("exporter", "architecture"), CELLS[:4])
def test_as_the_graph_is_written_asking_for_signals_leaves_the_logits_to_the_bit(exporter, architecture, open_cell):
    model = open_cell(exporter, architecture)
    bare = handed_over(model, ["logits"])["logits"]
    assert same(handed_over(model, model.session.offers)["logits"], bare)
    assert same(handed_over(model, ["blocks.1.attn.pattern", "logits"])["logits"], bare)
    assert model.info.capture_tolerance == 0


@pytest.mark.parametrize(("exporter", "architecture"), [("torchscript", "gpt2"), ("dynamo-18", "gpt2")])
def test_as_it_ships_they_move_no_more_than_is_stated(exporter, architecture, cell):
    if exporter.startswith("dynamo"):
        pytest.importorskip("onnxscript")
    with open_graph(cell(exporter, architecture), "shipped", threads=1) as model:
        stated = model.info.capture_tolerance
        for tokens in (PROMPT, PROMPT[::-1], PROMPT[:3]):
            bare = handed_over(model, ["logits"], tokens)["logits"]
            found = handed_over(model, model.session.offers, tokens)["logits"]
            assert np.abs(found - bare).max() <= stated * np.abs(bare).max()
    assert stated < ROUNDING
