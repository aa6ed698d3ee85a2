"""GPT-2 as transformers wrote it when ONNX Runtime's optimiser learnt its patterns: exported by tracing, then fused by that optimiser, which puts
attention with its matrix, and both look-ups with their sum and norm, into one operator each.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("llmtrace_onnxruntime")
torch = pytest.importorskip("torch")

import onnx
from torch import nn

import llmtrace
from tests.backends.onnxruntime.opening import differences, open_graph
from tests.backends.onnxruntime.reading.opened import error, unlike, violated
from tests.backends.onnxruntime.written import TOKENS

WIDTH, HEADS, VOCAB, CONTEXT = 64, 4, 97, 64


class Affine(nn.Module):
    """A product and a sum in one, as GPT-2 has them."""

    def __init__(self, reads, makes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(reads, makes) / reads**0.5)
        self.bias = nn.Parameter(torch.randn(makes) / 3)

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.weight.size(1))


class Attention(nn.Module):
    """Scores that are divided by a root, and hidden by a slice of a table."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.tril(torch.ones(CONTEXT, CONTEXT, dtype=torch.bool))[None, None])
        self.register_buffer("hidden", torch.tensor(-1e4))
        self.enters, self.leaves = Affine(WIDTH, 3 * WIDTH), Affine(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (each.view(*x.size()[:-1], HEADS, -1) for each in self.enters(x).split(WIDTH, dim=2))
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        scores = torch.matmul(q, k) / float(v.size(-1)) ** 0.5
        queries, keys = scores.size(-2), scores.size(-1)
        scores = torch.where(self.seen[:, :, keys - queries : keys, :keys], scores, self.hidden)
        z = torch.matmul(torch.softmax(scores, -1), v).permute(0, 2, 1, 3).contiguous()
        return self.leaves(z.view(*z.size()[:-2], WIDTH))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2, self.attn = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention()
        self.enters, self.leaves = Affine(WIDTH, 4 * WIDTH), Affine(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = self.attn(self.ln1(x)) + x
        pre = self.enters(self.ln2(x))
        post = 0.5 * pre * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (pre + 0.044715 * torch.pow(pre, 3))))
        return self.leaves(post) + x


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.final = nn.ModuleList([Block(), Block()]), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids):
        places = torch.arange(0, ids.size(-1), dtype=torch.long).unsqueeze(0)
        x = self.tokens(ids) + self.places(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final(x))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """PyTorch's module; its graph; and what the optimiser makes of that."""
    from onnxruntime.transformers import optimizer

    torch.manual_seed(0)
    module, ids = Decoder().eval(), torch.tensor([TOKENS])
    plain, fused = (tmp_path_factory.mktemp(name) / "model.onnx" for name in ("plain", "fused"))
    axes = {"ids": {0: "batch", 1: "token"}, "logits": {0: "batch", 1: "token"}}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("onnxruntime").setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            (ids,),
            plain,
            dynamo=False,
            opset_version=14,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
        model = optimizer.optimize_model(str(plain), model_type="gpt2", num_heads=HEADS, hidden_size=WIDTH, opt_level=0)
        model.save_model_to_file(str(fused))
    return module, plain, fused


def test_the_optimiser_has_fused_what_this_is_about(made):
    ops = [node.op_type for node in onnx.load(made[2]).graph.node]
    assert (ops.count("Attention"), ops.count("EmbedLayerNormalization"), ops.count("Softmax")) == (2, 1, 0)


def test_the_fused_graph_is_the_same_model(made):
    _, plain, fused = made
    one, other = open_graph(fused), open_graph(plain)
    assert [each for each in differences(one.spec, other.spec) if "context" not in each] == []
    assert {name: np.array_equal(array, other.weights[name]) for name, array in one.weights.items()} == dict.fromkeys(
        other.weights, True
    )
    assert not violated(one)
    assert not unlike(one.trace(list(TOKENS)), other.trace(list(TOKENS)))


def test_every_signal_is_pytorch_s(made):
    module, _, path = made
    trace = open_graph(path).trace(list(TOKENS))
    kept = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _, __, out, name=name: kept.__setitem__(name, out.detach().numpy()[0]))
    with torch.no_grad():
        module(torch.tensor([TOKENS]))
    wanted = {
        "logits": kept["head"],
        "ln_final.out": kept["final"],
        "embed": kept["tokens"],
        "pos_embed": kept["places"],
    }
    for layer in range(2):
        at, there = f"blocks.{layer}", f"blocks.{layer}"
        q, k, v = (each.reshape(-1, HEADS, WIDTH // HEADS) for each in np.split(kept[f"{there}.attn.enters"], 3, -1))
        wanted |= {f"{at}.attn.q": q, f"{at}.attn.k": k, f"{at}.attn.v": v, f"{at}.attn.out": kept[f"{there}.attn"]}
        wanted |= {
            f"{at}.ln1.out": kept[f"{there}.ln1"],
            f"{at}.ln2.out": kept[f"{there}.ln2"],
            f"{at}.resid_post": kept[there],
        }
        wanted |= {f"{at}.mlp.pre": kept[f"{there}.enters"], f"{at}.mlp.out": kept[f"{there}.leaves"]}
    assert {site: off for site, array in wanted.items() if (off := error(trace[site].array, array)) > 1e-5} == {}


def test_a_value_to_which_an_operator_adds_a_bias_is_shown_with_it_and_can_be_edited(made):
    _, plain, fused = made
    one, other = open_graph(fused), open_graph(plain)
    for site in ("blocks.0.attn.out", "blocks.1.mlp.pre"):  # the biases are a norm's, and an activation's
        assert str(one.trace(list(TOKENS), capture=[site])[site].provenance) == "converted(bias added)"
        edits = [llmtrace.ablate(site, tokens=[4])]
        found, wanted = (each.trace(list(TOKENS), capture=[site, "logits"], edits=edits) for each in (one, other))
        assert not found[site].array[4].any()
        assert not unlike(found, wanted)


def test_an_edit_of_the_stream_that_the_first_operator_makes_reaches_its_norm(made):
    _, plain, fused = made
    for site in ("blocks.0.resid_pre", "blocks.1.attn.z"):
        edits = [llmtrace.ablate(site, tokens=[2])]
        one, other = (
            open_graph(path).trace(list(TOKENS), capture=["logits", "blocks.0.ln1.out"], edits=edits)
            for path in (fused, plain)
        )
        assert not unlike(one, other)
    assert (
        not open_graph(fused)
        .trace(list(TOKENS), capture=["blocks.0.resid_pre"], edits=[llmtrace.ablate("blocks.0.resid_pre", tokens=[2])])[
            "blocks.0.resid_pre"
        ]
        .array[2]
        .any()
    )
