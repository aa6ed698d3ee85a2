"""Ways to wire a block. A family is a wiring, an attention, an MLP and a norm."""

from __future__ import annotations

from llmtrace.spec import Attention, Block, Branch, GatedMlp, Mlp, Moe, Norm, PreNorm

Feed = Mlp | GatedMlp | Moe


def sequential(attn: Attention, mlp: Feed, norm: Norm, *, post: Norm | None = None, multiplier: float = 1.0) -> Block:
    """Attention, then the MLP of what that left; a norm before each, and with `post` one after each (sandwich)."""
    return Block(
        norms=(PreNorm("ln1", "resid_pre", norm), PreNorm("ln2", "resid_mid", norm)),
        branches=(Branch("attn", "ln1.out", attn, post, multiplier), Branch("mlp", "ln2.out", mlp, post, multiplier)),
    )


def post_norm(attn: Attention, mlp: Feed, norm: Norm) -> Block:
    """The branches read the stream itself, and what they add is normed."""
    return Block(norms=(), branches=(Branch("attn", "resid_pre", attn, norm), Branch("mlp", "resid_mid", mlp, norm)))


def parallel(attn: Attention, mlp: Feed, norm: Norm, *, shared: bool = False) -> Block:
    """Both branches read the block's input, through a norm each or a shared one."""
    norms = (PreNorm("ln1", "resid_pre", norm),) + (() if shared else (PreNorm("ln2", "resid_pre", norm),))
    return Block(norms, (Branch("attn", "ln1.out", attn), Branch("mlp", f"{norms[-1].name}.out", mlp)))
