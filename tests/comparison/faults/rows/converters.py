"""Faults of converters: a graph that is written of another model than the one it was given, with the right weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from llmtrace.comparison.specs import swapped
from llmtrace.spec import Attention, ModelSpec, Norm
from tests.comparison.faults.fault import Fault

SCORED = ("blocks.0.attn.scores", "blocks.0.attn.pattern", "blocks.0.attn.z")
TURNED = ("blocks.0.attn.rot_q",)


def attention(**fields: Any) -> Callable[[ModelSpec], ModelSpec]:
    """Fields of every block's attention."""

    def change(spec: ModelSpec) -> ModelSpec:
        for place in range(len(spec.blocks)):
            old = spec.blocks[place].attention
            assert isinstance(old, Attention)
            blocks = list(spec.blocks)
            blocks[place] = swapped(blocks[place], old, evolve(old, **fields))
            spec = evolve(spec, blocks=tuple(blocks))
        return spec

    return change


def rotary(**fields: Any) -> Callable[[ModelSpec], ModelSpec]:
    """Fields of every block's rotary."""

    def change(spec: ModelSpec) -> ModelSpec:
        old = spec.blocks[0].attention
        assert old is not None and old.rotary is not None
        return attention(rotary=evolve(old.rotary, **fields))(spec)

    return change


def _without_posts(spec: ModelSpec) -> ModelSpec:
    return evolve(
        spec,
        blocks=tuple(
            evolve(block, branches=tuple(evolve(b, post=None) for b in block.branches)) for block in spec.blocks
        ),
    )


def _last_eps(spec: ModelSpec) -> ModelSpec:
    return evolve(spec, ln_final=evolve(spec.ln_final, eps=1e-2))


def _second_eps(spec: ModelSpec) -> ModelSpec:
    def changed(norm: Norm) -> Norm:
        return evolve(norm, eps=1e-3)

    blocks = tuple(
        evolve(block, norms=(block.norms[0], evolve(block.norms[1], norm=changed(block.norms[1].norm))))
        for block in spec.blocks
    )
    return evolve(spec, blocks=blocks)


def _unscaled(spec: ModelSpec) -> ModelSpec:
    return evolve(spec, embed=evolve(spec.embed, scale=1.0))


ROWS = (
    Fault("rotary layout, as converted", "llama", TURNED, ("rotary layout interleaved",), spec=rotary(layout="interleaved")),
    Fault("rotary of half the channels, as converted", "qwen2", TURNED, ("width",), spec=rotary(width=8)),
    Fault("rotary missing, as converted", "mixtral", TURNED, ("rotary",), spec=attention(rotary=None)),
    Fault("attention scale 1, as converted", "llama", SCORED, ("scale",), spec=attention(scale=1.0)),
    Fault("norms of q and k missing, as converted", "qwen3", TURNED, ("norm",), spec=attention(q_norm=None, k_norm=None)),
    Fault("post-norms missing, as converted", "gemma2", ("blocks.0.attn_post.out", "blocks.0.attn_out"), ("post",), spec=_without_posts),
    Fault("epsilon of the last norm, as converted", "llama", ("ln_final.out", "logits"), ("eps",), spec=_last_eps),
    Fault("epsilon of the second norm, as converted", "granite", ("blocks.0.ln2.out",), ("eps",), spec=_second_eps),
    Fault("scale of the embedding missing, as converted", "gemma2", ("embed",), ("scale 1 instead of 8",), spec=_unscaled),
)  # fmt: skip
