"""The other side of these tests: what transformers' own modules show, and token-wise vectors made from it one source at a time.

**Watched**: one forward pass of a tiny seeded model. Vectors are sent through the model's own output projection, post-norm and final
norm as modules, so that nothing here knows the schema's equations or weight names.
"""

from __future__ import annotations

import copy
import functools
import sys

import numpy as np
import pytest
from attrs import frozen

import llmtrace
from llmtrace.protocol import SupportsWeights
from llmtrace.reference.session import ReferenceSession
from llmtrace.testing import handmade
from llmtrace.testing.tiny import write_tiny

TOKENS = [5, 17, 3, 88, 41, 41, 9, 60, 2, 33, 5, 17]
FAMILIES = ("llama", "gpt2", "gemma2", "gpt_neox", "olmo2", "granite", "gpt_oss", "mixtral")


@frozen(eq=False)
class Shown:
    """One block."""

    pattern: np.ndarray  # [head query key]
    sent: np.ndarray  # what each source adds to the stream through each head, [head query key d_model]
    pre: np.ndarray
    y: np.ndarray  # the stream right after attention
    post: np.ndarray
    mlp: np.ndarray  # what the MLP adds to the stream

    @property
    def transformed(self) -> np.ndarray:
        """T_ij, [query key d_model]."""
        vectors = self.sent.sum(0)
        for token, stream in enumerate(self.pre):
            vectors[token, token] += stream
        return vectors


@frozen(eq=False)
class Watched:
    """One forward pass, and functions of the model's last steps."""

    blocks: list[Shown]
    embed: np.ndarray  # token and position embeddings together
    logits: np.ndarray
    read: object  # stream vectors to logits: the final norm, the head, scale and softcap
    linear: (
        object  # stream parts to uncapped logits at the final norm's own denominator, without biases: [token … d_model]
    )


def _parts(family, model):
    """The blocks; and by block its attention's output projection, its post-norm, where y shows itself, and its MLP's last module."""
    if family == "gpt2":
        return model.transformer.h, lambda b: (b.attn.c_proj, None, b.ln_2, b.mlp), model.transformer.ln_f
    if family == "gpt_neox":
        return model.gpt_neox.layers, lambda b: (b.attention.dense, None, None, b.mlp), model.gpt_neox.final_layer_norm
    y = {"gemma2": lambda b: b.pre_feedforward_layernorm, "olmo2": lambda b: b.mlp}.get(
        family, lambda b: b.post_attention_layernorm
    )
    post = (lambda b: b.post_attention_layernorm) if family in ("gemma2", "olmo2") else (lambda b: None)
    last = (lambda b: b.post_feedforward_layernorm) if family in ("gemma2", "olmo2") else (lambda b: b.mlp)
    return model.model.layers, lambda b: (b.self_attn.o_proj, post(b), y(b), last(b)), model.model.norm


def watch(family, model, tokens) -> Watched:
    """Run transformers once, keep what modules show, and part it by sources in float64."""
    import torch
    import transformers

    blocks, parts_of, final = _parts(family, model)
    kept, handles = {}, []

    def keep(name, module, output):
        def hook(module, inputs, outputs):
            value = outputs if output else inputs
            kept[name] = (value[0] if isinstance(value, tuple) else value).detach().double().squeeze(0)

        handles.append(module.register_forward_hook(hook))

    for layer, block in enumerate(blocks):
        project, _, mid, mlp = parts_of(block)
        keep(("pre", layer), block, False)
        keep(("post", layer), block, True)
        keep(("out", layer), project, True)
        keep(("mlp", layer), mlp, True)
        if mid is not None:
            keep(("y", layer), mid, False)
    keep("final", final, False)

    def attend(module, query, key, value, mask, **named):
        output, weights = sys.modules[type(module).__module__].eager_attention_forward(
            module, query, key, value, mask, **named
        )
        kept["attention", module.layer_idx] = weights[0].detach().double(), value[0].detach().double()
        return output, weights

    transformers.AttentionInterface.register("watched", attend)
    transformers.AttentionMaskInterface.register("watched", transformers.masking_utils.eager_mask)
    model.set_attn_implementation("watched")
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0].double()
    for handle in handles:
        handle.remove()
    multiplier = getattr(model.config, "residual_multiplier", 1.0)
    shown = [_show(kept, layer, parts_of(block), multiplier) for layer, block in enumerate(blocks)]
    read, linear = _last_steps(model, final, kept["final"])
    return Watched(shown, kept["pre", 0].numpy(), logits.numpy(), read, linear)


def _show(kept, layer, modules, multiplier) -> Shown:
    import torch

    project, post, _, _ = modules
    project = copy.deepcopy(project).double()
    pattern, value = kept["attention", layer]
    out = kept["out", layer]
    heads, length, group = len(pattern), pattern.shape[1], len(pattern) // len(value)
    factor = (
        torch.ones_like(out) if post is None else copy.deepcopy(post).double()(out) / out
    )  # the norm's factors, fixed
    sent = torch.zeros(heads, length, length, out.shape[1], dtype=torch.float64)
    with torch.no_grad():
        nothing = project(torch.zeros(length, heads * value.shape[2], dtype=torch.float64))
        for head in range(heads):
            for source in range(length):
                z = torch.zeros(length, heads, value.shape[2], dtype=torch.float64)
                z[:, head] = pattern[head, :, source, None] * value[head // group, source]
                sent[head, :, source] = multiplier * factor * (project(z.reshape(length, -1)) - nothing)
    y = kept.get(("y", layer))
    y = kept["pre", layer] + out if y is None else y
    mlp = multiplier * kept["mlp", layer]
    pre, post = kept["pre", layer].numpy(), kept["post", layer].numpy()
    return Shown(pattern.numpy(), sent.numpy(), pre, y.numpy(), post, mlp.numpy())


def _last_steps(model, final, last):
    import torch

    norm, head = copy.deepcopy(final).double(), copy.deepcopy(model.lm_head).double()
    scale = 1 / getattr(model.config, "logits_scaling", 1.0)
    cap = getattr(model.config, "final_logit_softcapping", None)
    centred = isinstance(norm, torch.nn.LayerNorm)

    def read(stream):
        with torch.no_grad():
            logits = head(norm(torch.tensor(stream))) * scale
            return (logits if cap is None else cap * torch.tanh(logits / cap)).numpy()

    def linear(parts):
        """The norm with its denominator fixed at the last stream, then the head without bias: the token axis is the first."""
        o = torch.tensor(parts)
        shape = (len(last), *[1] * (o.ndim - 2), last.shape[1])
        with torch.no_grad():
            if centred:
                sigma = (last.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
                normed = norm.weight * (o - o.mean(-1, keepdim=True)) / sigma.reshape(*shape[:-1], 1)
            else:
                normed = o * (norm(last) / last).reshape(shape)
            return (scale * torch.nn.functional.linear(normed, head.weight)).numpy()

    return read, linear


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """By family: a tiny model opened by the reference backend, and transformers' own pass over `TOKENS`."""
    pytest.importorskip("torch").set_num_threads(1)
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    @functools.cache
    def make(family, **overrides):
        directory = tmp_path_factory.mktemp(family)
        model = write_tiny(family, directory, **overrides)
        return llmtrace.open(directory, backend="reference"), watch(family, model, TOKENS)

    return make


@pytest.fixture(params=FAMILIES)
def family(request):
    """One architecture: GQA, learned positions, sandwich norms with softcaps, parallel, post-norm, multipliers, sinks, experts."""
    return request.param


@pytest.fixture(scope="session")
def hand(tmp_path_factory):
    """The hand-built model: previous-token head L0H0 and induction head L1H0."""
    return llmtrace.open(handmade.write(tmp_path_factory.mktemp("hand")), backend="reference")


def build(spec, seed=0, std=0.2):
    """A model of a spec that no checkpoint has, with seeded weights (norms about one), run by the reference backend."""
    from llmtrace.model import Model
    from llmtrace.schema.steps import steps
    from llmtrace.trace import ModelInfo

    random = np.random.default_rng(seed)
    weights = {}
    for step in steps(spec).values():
        for weight in step.weights.values():
            centre = 1.0 if weight.name.endswith(".w") else 0.0
            weights.setdefault(weight.name, centre + std * random.normal(size=weight.shape))
    session = ReferenceSession(
        spec, weights, dict.fromkeys(weights, "float64"), "float64", ModelInfo("by hand", "reference", "NumPy")
    )
    assert isinstance(session, SupportsWeights)
    return Model(session)


@pytest.fixture(scope="session")
def built():
    """`build`: from a spec to a model."""
    return build


@pytest.fixture(scope="session")
def tokens():
    """The prompt that the tiny models are watched on: it repeats tokens, one of them at once."""
    return TOKENS
