"""From a spec to its sites. **Part**: a record at its place; **step**: one site with its equation and the names of its inputs.

`steps(spec)` is the whole model as data, in the order in which a forward pass meets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from graphlib import TopologicalSorter
from inspect import Parameter
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from llmtrace.schema.sites import EQUATIONS, INPUTS, WEIGHTS, Equation
from llmtrace.spec import Attention, Block, Carry, Mixer, ModelSpec, Norm, OpaqueHeads, Sizes, Sum


def any_layer(text: str) -> str:
    """Names of sites and weights with `L` for the block that they stand in, wherever they are in a text.

    >>> any_layer("blocks.3.attn.z")
    'blocks.L.attn.z'
    """
    return re.sub(r"\bblocks\.\d+\.", "blocks.L.", text)


HEADS = {"rot_q": "token head d_head", "rot_k": "token kv_head d_head", "v": "token kv_head d_value"}
"""What scores and mixtures are made of, and its axes."""
OPTIONAL = ("q_latent", "kv_latent")
"""Parts that an attention may read instead of what its branch does."""
BEFORE = ("embed", "pos_embed")
"""The sites that stand in no block and come before the first."""


@lru_cache(maxsize=1 << 14)  # every signal of every run is asked
def stage_of(site: str, blocks: int) -> int:
    """When a forward pass meets a site: -1 before block 0, L in block L, `blocks` after the last.

    >>> stage_of("embed", 4), stage_of("blocks.2.attn.z", 4), stage_of("logits", 4)
    (-1, 2, 4)
    """
    layer = layer_of(site)
    return layer if layer is not None else -1 if site in BEFORE else blocks


@frozen
class Part:
    """A record, where it stands, and what flows into it."""

    address: str
    """The beginning of its sites' names: `blocks.3.attn`."""
    record: Any
    """What the part is."""
    reads: str = ""
    """The site that an equation calls `x`."""
    terms: tuple[str, ...] = ()
    """The sites that a sum adds."""
    axes: tuple[str, ...] = ("token", "d_model")
    """The axes of what it reads."""
    sizes: Sizes = field(factory=dict)
    """Lengths of axes that an enclosing record introduces."""
    other: dict[str, str] = field(factory=dict)
    """Parameters that mean another site than the one of their name (`q` is the normed q where a norm stands between)."""
    weights: str = field()
    """Where its weights stand, if not under its own address."""

    @weights.default
    def _own(self) -> str:
        return self.address


@frozen
class Weight:
    """A weight that a step reads, with its axes and shape."""

    name: str
    """Full: `blocks.3.attn.W_Q`."""
    axes: tuple[str, ...]
    """Names of its axes."""
    shape: tuple[int, ...]
    """Their lengths."""


@frozen
class Step:
    """One site of one model: everything needed to evaluate it, by full name."""

    site: str
    """Its full name."""
    record: Any
    """The record that owns the equation."""
    equation: Equation
    """How the value follows from the inputs."""
    axes: tuple[str, ...]
    """Of the value."""
    sizes: Sizes
    """The lengths of all axes but those of tokens (`token`, `query`, `key`)."""
    terms: tuple[str, ...]
    """Positional: what a sum adds."""
    signals: dict[str, str]
    """Parameter to site, or to a model input."""
    weights: dict[str, Weight]
    """Parameter to weight."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The sites and model inputs that it reads, without weights."""
        return self.terms + tuple(self.signals.values())

    @property
    def across(self) -> tuple[str, ...]:
        """The inputs of which one row of the value reads every row."""
        return tuple(self.signals[parameter] for parameter in self.equation.across(self.record).split())

    @property
    def layer(self) -> int | None:
        """The block that it stands in; None at the ends."""
        return layer_of(self.site)

    def shape(self, tokens: int) -> tuple[int, ...]:
        """The shape of the whole signal for a prompt of `tokens` tokens."""
        by_name = self.sizes | {"token": tokens, "query": tokens, "key": tokens, "1": 1}
        return tuple(by_name[axis] for axis in self.axes)


@lru_cache(maxsize=1 << 14)  # as `stage_of`
def layer_of(site: str) -> int | None:
    """The block that a site or weight stands in; None at the ends.

    >>> layer_of("blocks.3.attn.z"), layer_of("logits")
    (3, None)
    """
    found = re.match(r"blocks\.(\d+)\.", site)
    return int(found[1]) if found else None


def parts(spec: ModelSpec) -> Iterator[Part]:
    """Every record of the model."""
    yield Part("embed", spec.embed)
    stream: tuple[str, ...] = ("embed",)
    if spec.positions is not None:
        yield Part("pos_embed", spec.positions)
        stream += ("pos_embed",)
    for layer, block in enumerate(spec.blocks):
        yield from _block(f"blocks.{layer}.", block, stream)
        stream = (f"blocks.{layer}.resid_post",)
    yield Part("ln_final", spec.ln_final, reads=stream[0])
    reads = "ln_final.out"
    if spec.head is not None:
        yield Part("head", spec.head, reads=reads)
        reads = "head.post"
        if spec.head.norm is not None:
            yield Part("head_norm", spec.head.norm, reads=reads)
            reads = "head_norm.out"
    yield Part("logits", spec.unembed, reads=reads, weights="unembed")


def _block(at: str, block: Block, stream: tuple[str, ...]) -> Iterator[Part]:
    """One block: a stream point or a norm comes right before the first branch that needs it."""
    norms = {f"{norm.name}.out": norm for norm in block.norms}
    terms: tuple[str, ...] = (at + "resid_pre",)
    done = {"resid_pre"}
    yield Part(at + "resid_pre", Sum(carry=block.carry_pre), terms=stream)
    for branch in block.branches:
        norm = norms.get(branch.reads)
        if (norm.reads if norm else branch.reads) == "resid_mid" and "resid_mid" not in done:
            yield Part(at + "resid_mid", Sum(carry=block.carry_mid), terms=_carried(at, block.carry_mid, terms))
            terms = (at + "resid_mid",)  # the stream goes on from here, so a change of it does too
            done.add("resid_mid")
        if norm and norm.name not in done:
            yield Part(at + norm.name, norm.norm, reads=at + norm.reads)
            done.add(norm.name)
        contribution = f"{at}{branch.name}_out"
        terms += (contribution,)
        if isinstance(branch.module, Mixer):
            yield Part(contribution, branch.module, reads=at + branch.reads)
            continue
        yield from _module(at + branch.name, branch.module, at + branch.reads)
        out = f"{at}{branch.name}.out"
        if not branch.followed:
            yield Part(contribution, OpaqueHeads("token d_model"), reads=out)
            continue
        if branch.post is not None:
            yield Part(f"{at}{branch.name}_post", branch.post, reads=out)
            out = f"{at}{branch.name}_post.out"
        yield Part(contribution, branch, reads=out)
    for each in block.norms:  # that the stream alone goes through
        if each.name not in done:
            yield Part(at + each.name, each.norm, reads=at + each.reads)
    end = Sum(block.stream_scale, block.carry_post)
    yield Part(at + "resid_post", end, terms=_carried(at, block.carry_post, terms))


def _carried(at: str, carry: Carry, terms: tuple[str, ...]) -> tuple[str, ...]:
    """What a point of the stream adds up: the stream, or what stands in its place, and the branches."""
    return (at + carry.reads, *terms[1:]) if carry.reads else terms


def _module(at: str, module: Any, reads: str) -> Iterator[Part]:
    """A branch's module, and the norms of q and k where they are parts of their own; or heads that are opaque."""
    if isinstance(module, Attention) and not module.projected:
        made = HEADS if module.mixed else {**HEADS, "z_post": "token head d_value"}
        for name, axes in made.items():
            yield Part(f"{at}.{name}", OpaqueHeads(axes), reads=reads, sizes=module.sizes)
        yield Part(at, module, reads=reads, sizes=module.sizes, other={name: f"{at}.{name}" for name in made})
        return
    if not isinstance(module, Attention):
        yield Part(at, module, reads=reads, sizes=module.sizes)
        return
    latent = {} if module.mixed else {"z_post": f"{at}.z_post"}
    if not module.mixed:
        yield Part(f"{at}.z_post", OpaqueHeads("token head d_value"), reads=reads, sizes=module.sizes)
    for name, few in (("q_latent", module.q_latent), ("kv_latent", module.kv_latent)):
        if few is None:
            continue
        latent[name] = f"{at}.{name}"
        yield Part(f"{at}.{name}", few, reads=reads)
        if few.norm is not None:
            latent[name] = f"{at}.{name}_norm.out"
            yield Part(f"{at}.{name}_norm", few.norm, reads=f"{at}.{name}", axes=("token", few.axis), sizes=few.sizes)
    if module.norm_after_rotary:
        yield Part(at, module, reads=reads, sizes=module.sizes, other=latent)
        return
    normed: list[tuple[str, str, Norm | None]] = [("q", "head", module.q_norm), ("k", "kv_head", module.k_norm)]
    other = latent | {which: f"{at}.{which}_norm.out" for which, _, norm in normed if norm}
    yield Part(at, module, reads=reads, sizes=module.sizes, other=other)
    for which, head, norm in normed:
        if norm is not None:
            yield Part(
                f"{at}.{which}_norm", norm, reads=f"{at}.{which}", axes=("token", head, "d_head"), sizes=module.sizes
            )


@lru_cache(maxsize=8)
def steps(spec: ModelSpec) -> Mapping[str, Step]:
    """Every site of the model, in dataflow order: a site comes after all that it reads, else in the order of the parts.

    Opening a model asks for it a dozen times, so it is made once for each spec.
    """
    found: dict[str, Step] = {}
    for part in parts(spec):
        for equation in EQUATIONS[type(part.record)].values():
            if equation.when(part.record):
                step = _step(spec, part, equation)
                found[step.site] = step
    order = TopologicalSorter({site: [name for name in step.inputs if name in found] for site, step in found.items()})
    rank = {site: place for place, site in enumerate(found)}
    sorted_sites: list[str] = []
    order.prepare()
    waiting: list[str] = list(order.get_ready())
    while waiting:
        site = min(waiting, key=rank.__getitem__)
        waiting.remove(site)
        sorted_sites.append(site)
        order.done(site)
        waiting += order.get_ready()
    return MappingProxyType({site: found[site] for site in sorted_sites})


def needed(spec: ModelSpec) -> Iterator[tuple[Weight, Sizes]]:
    """Every weight that the steps read, once, with the lengths of its axes."""
    seen: set[str] = set()
    for step in steps(spec).values():
        for weight in step.weights.values():
            if weight.name not in seen:
                seen.add(weight.name)
                yield weight, step.sizes


def _step(spec: ModelSpec, part: Part, equation: Equation) -> Step:
    """Say what each parameter's name means at this place."""
    kind = type(part.record)
    sizes = spec.sizes | part.sizes | getattr(part.record, "sizes", {})
    signals, weights = {}, {}
    for argument in equation.arguments:
        name = argument.name
        if argument.kind is Parameter.VAR_POSITIONAL:
            continue
        if name in INPUTS:
            signals[name] = name
        elif name == "x":
            signals[name] = part.reads
        elif name in part.other:
            signals[name] = part.other[name]
        elif name in EQUATIONS[kind]:
            if EQUATIONS[kind][name].when(part.record):
                signals[name] = f"{part.address}.{name}"
        elif name not in OPTIONAL:
            row = WEIGHTS[kind][name]
            if axes := row.axes(part.record):
                names = tuple(axes.split())
                weights[name] = Weight(
                    f"{part.weights}.{row.name}", names, tuple(1 if a == "1" else sizes[a] for a in names)
                )
    site = f"{part.address}.{equation.name}" if equation.name else part.address
    axes = equation.axes if isinstance(equation.axes, str) else equation.axes(part.record, part.axes)
    return Step(site, part.record, equation, tuple(axes.split()), sizes, part.terms, signals, weights)
