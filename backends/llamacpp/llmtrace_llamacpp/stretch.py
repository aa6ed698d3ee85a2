"""LongRoPE as llama.cpp has it: which of the two tables turns q and k is decided by the room that the context has, and not by the
prompt's length. **Step**: contexts have room for a multiple of so many tokens.
"""

from __future__ import annotations

from attrs import evolve

from llmtrace.spec import Attention, Block, LongRope, ModelSpec, Rotary

STEP = 256
"""llama.cpp's cache is no finer."""


def roomy(tokens: int) -> int:
    """The room that a context for so many tokens has."""
    return -(-tokens // STEP) * STEP


def as_run(spec: ModelSpec, context: int | None) -> ModelSpec:
    """The spec with the tables of the model that runs: by a context of one size, or else of the size that each prompt needs."""
    return evolve(spec, blocks=tuple(_block(block, context) for block in spec.blocks))


def edges(spec: ModelSpec) -> frozenset[int]:
    """The sizes of context beyond which another table is taken."""
    return frozenset(
        rotary.scaling.context
        for block in spec.blocks
        if block.attention is not None and (rotary := block.attention.rotary) is not None
        if isinstance(rotary.scaling, LongRope) and rotary.scaling.short != rotary.scaling.long
    )


def _block(block: Block, context: int | None) -> Block:
    return evolve(
        block,
        branches=tuple(
            evolve(branch, module=evolve(branch.module, rotary=_rotary(branch.module.rotary, context)))
            if isinstance(branch.module, Attention) and branch.module.rotary is not None
            else branch
            for branch in block.branches
        ),
    )


def _rotary(rotary: Rotary, context: int | None) -> Rotary:
    scaling = rotary.scaling
    if not isinstance(scaling, LongRope) or scaling.short == scaling.long:
        return rotary
    if context is None and scaling.context >= STEP:
        return evolve(rotary, scaling=evolve(scaling, context=scaling.context // STEP * STEP))
    taken = scaling.long if roomy(context or STEP) > scaling.context else scaling.short
    return evolve(rotary, scaling=evolve(scaling, short=taken, long=taken))
