"""Small models for tests of the core: specs with every feature of the schema, seeded weights, and a session that runs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen
from hypothesis import strategies as st

from llmtrace.protocol import Gap, Observer, Offer, Request
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.precision import Precision
from llmtrace.schema.sites import Array
from llmtrace.schema.steps import layer_of, steps
from llmtrace.spec import (
    Attention,
    Block,
    Branch,
    Carry,
    Clamp,
    Embedding,
    Gate,
    GatedMlp,
    Groups,
    Head,
    Latent,
    Linear,
    Mixer,
    Mlp,
    ModelSpec,
    Moe,
    Norm,
    Positions,
    PreNorm,
    Rotary,
    Shared,
    Unembedding,
)
from llmtrace.trace import ModelInfo

RMS = Norm(1e-5)
LAYER_NORM = Norm(1e-5, centred=True, bias=True)
WIDTH, VOCAB = 12, 11
GQA = Attention(4, 2, 6, 6, 6**-0.5, rotary=Rotary(100.0, 6), biases="QKVO")
GATED = GatedMlp(10, "silu", bias=True)


def sequential(attention: Attention = GQA, mlp: Any = GATED, norm: Norm = RMS, post: Norm | None = None) -> Block:
    """Attention, then MLP, each behind a norm of its own."""
    norms = (PreNorm("ln1", "resid_pre", norm), PreNorm("ln2", "resid_mid", norm))
    return Block(norms, (Branch("attn", "ln1.out", attention, post), Branch("mlp", "ln2.out", mlp, post)))


def model(*blocks: Block, **fields: Any) -> ModelSpec:
    """A model of these blocks, the small sizes of this module, and other fields as given."""
    return ModelSpec("fake", WIDTH, VOCAB, fields.pop("context", 64), blocks, fields.pop("ln_final", RMS), **fields)


PARALLEL = Block(
    (PreNorm("ln1", "resid_pre", LAYER_NORM),),
    (Branch("attn", "ln1.out", GQA, multiplier=0.5), Branch("mlp", "ln1.out", Mlp(10, "gelu", bias=True))),
    stream_scale=0.7,
)
POST_ONLY = Block((), (Branch("attn", "resid_pre", GQA, post=RMS), Branch("mlp", "resid_mid", GATED, post=RMS)))
MIXED = Block(
    (PreNorm("ln1", "resid_pre", RMS), PreNorm("ln2", "resid_mid", RMS)),
    (Branch("attn", "ln1.out", GQA), Branch("mixer", "ln1.out", Mixer("mamba2")), Branch("mlp", "ln2.out", GATED)),
)
CARRIED = evolve(
    sequential(post=RMS), carry_pre=Carry(bias=True), carry_mid=Carry("", 0.6, weight=True), carry_post=Carry("", 0.8, True, True),
    branches=(Branch("attn", "ln1.out", GQA, weight=True), Branch("mlp", "ln2.out", GATED, RMS, 0.7, weight=True)),
)  # fmt: skip
POST_NORM = evolve(sequential(), carry_mid=Carry("ln1.out"), carry_post=Carry("ln2.out", 0.5))
EXPERTS = Moe(
    5,
    2,
    GatedMlp(7, "silu", bias=True, clamp=Clamp(1.5)),
    renormalise=True,
    router_bias=True,
    shared=Shared(GatedMlp(6, "gelu"), True),
)
HEAD_NORM = Norm(1e-6, over="d_head")

SPECS: dict[str, ModelSpec] = {
    "sequential": model(sequential(), sequential()),
    "learned positions": model(
        sequential(Attention(3, 3, 4, 4, 0.5, biases="QKVO"), Mlp(10, "gelu_tanh", bias=True), LAYER_NORM),
        ln_final=LAYER_NORM, positions=Positions(70, 2), unembed=Unembedding(bias=True),
    ),
    "parallel": model(PARALLEL, PARALLEL),
    "sandwich": model(
        sequential(evolve(GQA, softcap=3.0, window=3), post=RMS), embed=Embedding(3.0), unembed=Unembedding(0.5, 4.0)
    ),
    "post-norms only": model(POST_ONLY, POST_ONLY),
    "q and k norms": model(sequential(evolve(GQA, q_norm=HEAD_NORM, k_norm=HEAD_NORM, v_norm=Norm(1e-6, over="d_head", weight=False)))),
    "whole-width q and k norms": model(
        sequential(evolve(GQA, q_norm=Norm(1e-6, over="head d_head"), k_norm=Norm(1e-6, over="kv_head d_head"), clip=0.8))
    ),
    "norms after rotary": model(sequential(evolve(GQA, q_norm=HEAD_NORM, k_norm=HEAD_NORM, norm_after_rotary=True))),
    "sinks": model(sequential(evolve(GQA, sinks=True, window=4))),
    "sinks taken off z": model(sequential(evolve(GQA, sinks=True, sinks_after=True, gate=Gate()))),
    "latents": model(
        sequential(
            Attention(
                4, 4, 10, 5, 0.3, rotary=Rotary(100.0, 4, start=6), q_latent=Latent("q_rank", 7, Norm(1e-6, over="q_rank")),
                kv_latent=Latent("kv_rank", 3, Norm(1e-6, over="kv_rank"), bias=True), shared=4,
            )
        ),
        sequential(Attention(4, 4, 10, 5, 0.3, kv_latent=Latent("kv_rank", 3), shared=2)),
    ),
    "a mask that the tokens make": model(sequential(evolve(GQA, masked=True))),
    "a mixture that goes on in another way": model(sequential(evolve(GQA, mixed=False)), sequential(evolve(GQA, projected=False, rotary=None, biases="O", mixed=False))),
    "a contribution that comes in another way": model(
        Block(
            (PreNorm("ln1", "resid_pre", RMS), PreNorm("ln2", "resid_mid", RMS)),
            (Branch("attn", "ln1.out", GQA, followed=False), Branch("mlp", "ln2.out", GATED)),
        )
    ),
    "keys that are chosen": model(sequential(evolve(GQA, selective=True, sinks=True))),
    "heads made in another way": model(sequential(Attention(4, 2, 6, 5, 0.4, softcap=3.0, biases="O", projected=False)), sequential()),
    "alibi": model(sequential(evolve(GQA, rotary=None, slopes=(0.5, 0.25, 0.125, 0.0625)))),
    "gate and norm on z": model(sequential(evolve(GQA, gate=Gate(), z_norm=Norm(1e-6, over="d_value")))),
    "gate a head": model(sequential(evolve(GQA, gate=Gate(per_head=True), d_value=5))),
    "gate with a bias": model(sequential(evolve(GQA, gate=Gate(bias=True)))),
    "experts": model(sequential(mlp=EXPERTS)),
    "corrected experts": model(
        sequential(mlp=Moe(5, 2, GatedMlp(7, "silu"), scoring="sigmoid", correction=True, scale=2.0, renormalise=True))
    ),
    "experts chosen first": model(sequential(mlp=Moe(5, 3, GatedMlp(7, "silu"), scoring="topk_softmax"))),
    "experts chosen first, by a sigmoid": model(
        sequential(mlp=Moe(5, 3, GatedMlp(7, "silu"), scoring="topk_sigmoid", correction=True, renormalise=True, eps=0.1))
    ),
    "experts in groups": model(
        sequential(mlp=Moe(6, 2, GatedMlp(7, "silu"), scoring="sigmoid", correction=True, groups=Groups(3, 2, 2)))
    ),
    "experts by shares": model(sequential(mlp=Moe(5, 2, GatedMlp(7, "silu"), scoring="sparsemixer", near=0.7))),
    "plain experts": model(
        sequential(mlp=Moe(5, 2, Mlp(7, "relu2", bias=True), shared=Shared(Mlp(6, "relu2")), scoring="sigmoid"))
    ),
    "experts whose inputs are weighed": model(sequential(mlp=Moe(5, 2, GatedMlp(7, "silu"), weighs="inputs", shared=Shared(GatedMlp(6, "silu"))))),
    "a norm inside the MLP": model(sequential(mlp=evolve(GATED, inner_norm=Norm(1e-6, over="d_mlp", bias=True)))),
    "xIELU": model(sequential(mlp=Mlp(10, "xielu"))),
    "mixer": model(MIXED, sequential()),
    "interleaved, partial, scaled": model(sequential(evolve(GQA, rotary=Rotary(100.0, 4, "interleaved", Linear(2.0))))),
    "carried stream": model(CARRIED, sequential(), CARRIED),
    "stream through norms": model(POST_NORM, POST_NORM),
    "fewer logits than tokens": model(sequential(), unembed=Unembedding(bias=True, vocab=8)),
    "a head": model(sequential(), head=Head("gelu", True, LAYER_NORM)),
    "normed embedding": model(sequential(), embed=Embedding(2.0, LAYER_NORM)),
}  # fmt: skip
"""By what is special about them."""
CLEAR = {name: spec for name, spec in SPECS.items() if not any(step.equation.opaque for step in steps(spec).values())}
"""Those that the equations run from end to end."""


def specs() -> st.SearchStrategy[ModelSpec]:
    """Random models: blocks of several of `SPECS`, in any order."""
    blocks = sorted({block for spec in CLEAR.values() for block in spec.blocks}, key=repr)
    return st.lists(st.sampled_from(blocks), min_size=1, max_size=3).map(lambda chosen: model(*chosen))


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, Array]:
    """Every weight that the equations read, by name."""
    rng = np.random.default_rng(seed)
    rows = {weight.name: weight.shape for step in Equations(spec).steps.values() for weight in step.weights.values()}
    return {
        name: 0.5 * rng.normal(size=shape) + (0.7 if len(shape) == 1 else 0.0) for name, shape in sorted(rows.items())
    }


def equations(spec: ModelSpec, seed: int = 0) -> Equations:
    """A spec with seeded weights."""
    return Equations(spec, random_weights(spec, seed))


def inputs(ids: Collection[int]) -> dict[str, Array]:
    """What the equations start from."""
    return {"tokens": np.asarray(ids), "positions": np.arange(len(ids))}


def capture(model: Equations, ids: Collection[int], given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Every signal of one run, by site."""
    opaque = {
        site: chosen_keys(len(ids))
        if site.endswith("selected")
        else np.random.default_rng(7).normal(size=step.shape(len(ids)))
        for site, step in model.steps.items()
        if step.equation.opaque
    }
    return dict(model.run(inputs(ids) | opaque | dict(given or {}), list(model.steps)))


def chosen_keys(length: int) -> Array:
    """1 where a query may see a key, itself always, [query key]."""
    return np.maximum(np.random.default_rng(7).integers(0, 2, (length, length)), np.eye(length, dtype=np.int64)).astype(
        np.uint8
    )


class FakeSession:
    """A runtime that hands out some sites of a model, as one type. `faults` are applied to what it hands over."""

    tokenizer = None

    def __init__(
        self, model: Equations, offers: Collection[str] | None = None, dtype: str = "float64", tolerance: float = 0.0
    ) -> None:
        self.model = model
        self.spec = model.spec
        self.info = ModelInfo("fake", "fake", "Fake", capture_tolerance=tolerance)
        self.dtype = dtype
        sites = [site for site in model.steps if offers is None or site in offers]
        self.offers = {site: Offer(precision=Precision(self._type(site), dtype)) for site in sites}
        self.gaps: Mapping[str, Gap] = {}
        self.closed = 0
        self.runs: list[Request] = []

    def _type(self, site: str) -> str:
        return "int64" if site.endswith("expert_index") else self.dtype

    def run(self, request: Request, observer: Observer) -> None:
        self.runs.append(request)
        done = 0
        signals = capture(self.model, request.tokens)
        for site, array in signals.items():
            layer = layer_of(site)
            reached = layer if layer is not None else 0 if site in ("embed", "pos_embed") else len(self.spec.blocks)
            while done < reached:
                observer.layer_done(done)
                done += 1
            if site in request.cuts:
                self.hand_over(site, request.cuts[site].apply(array).astype(self._type(site)), observer)
        for layer in range(done, len(self.spec.blocks)):
            observer.layer_done(layer)

    def hand_over(self, site: str, array: Array, observer: Observer) -> None:
        """Overridden by sessions that do it wrong."""
        observer.signal(site, array)

    def close(self) -> None:
        self.closed += 1


class WeighedSession(FakeSession):
    """A session whose weights can be read."""

    stored: Mapping[str, str] = {}

    @property
    def weights(self) -> Mapping[str, Array]:
        return self.model.weights


@frozen
class FakeOptions:
    """Settings of every type that an option may have."""

    threads: int = 1
    """A number."""
    flash: bool = False
    """A switch."""
    cache: str = "f16"
    """A text."""
    limit: float = 0.5
    """A share."""
    seed: int | None = None
    """A number or nothing."""
    device: str | None = None
    """A text or nothing."""
