"""Comparisons made of records, seeded, of any size: what the page of a comparison shows, without a model."""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve

from llmtrace.comparison.budget import Budget, Distance, Swap, Unswapped
from llmtrace.comparison.by_prompt import PromptErrors
from llmtrace.comparison.by_token import TokenErrors, TokenNorms, WorstToken
from llmtrace.comparison.flips import Flips
from llmtrace.comparison.formats import Tensor
from llmtrace.comparison.mechanisms import HeadAgreement, InfluenceAgreement, LensAgreement, Mechanisms, MotifAgreement
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.record import (
    Candidate,
    Cause,
    Comparison,
    Difference,
    Divergence,
    Nearer,
    RunPrompt,
    SiteError,
    Tried,
)
from llmtrace.comparison.tokens import TokenDifference
from llmtrace.trace import ModelInfo, Token

KINDS = (
    "resid_pre", "ln1.out", "attn.q", "attn.k", "attn.v", "attn.rot_q", "attn.rot_k", "attn.scores", "attn.pattern", "attn.z", "attn.out",
    "resid_mid", "ln2.out", "mlp.pre", "mlp.pre_linear", "mlp.post", "mlp.out", "resid_post",
)  # fmt: skip
TEXTS = ("The", " capital", " of", " France", " is")
SHORT = ("a", " b", "\n")


def info(source, weights="float32"):
    return ModelInfo(source, "torch", "PyTorch", {"torch": "2.13.0"}, "", weights, "cpu", "shipped", {}, (), 0.0)


def comparison(layers=4, prompts=(TEXTS, SHORT), names=("model.gguf",), **fields):
    """A reference and a candidate for each name; `fields` are those of every candidate."""
    ran = tuple(
        RunPrompt(f"prompt {at}", "".join(texts), tuple(Token(100 + place, text) for place, text in enumerate(texts)))
        for at, texts in enumerate(prompts)
    )
    sizes = tuple(
        TokenNorms(site, prompt, tuple(np.random.default_rng([7, prompt]).gamma(2, 50, len(texts)).tolist()))
        for site in ("embed", *(f"blocks.{layer}.resid_post" for layer in range(layers))) for prompt, texts in enumerate(prompts)
    )  # fmt: skip
    made = tuple(candidate(name, seed, layers, prompts, **fields) for seed, name in enumerate(names))
    return Comparison(info("/models/checkpoint"), ran, made, ("a note about the reference",), sizes)


def candidate(name, seed, layers, prompts, **fields):
    """Errors that differ everywhere; `blocks.1.attn.v` diverges, `blocks.L.mlp.out` is beyond rounding, `attn.scores` is unchecked."""
    rng = np.random.default_rng(seed)
    counts = [len(texts) for texts in prompts]

    def site(name):
        kind = name.split(".", 2)[-1]
        status = (
            "violated"
            if kind == "mlp.out" or name == "blocks.1.attn.v"
            else "unchecked"
            if kind == "attn.scores"
            else "holds"
        )
        size = {"holds": 1, "violated": 3e5 if kind == "mlp.out" else 3e4, "unchecked": 0}[status]
        local = float(size * 10 ** rng.uniform(-7, -6))
        worst = sorted(
            (
                WorstToken(prompt, int(token), float(local * rng.uniform(0.5, 2)), float(10 ** rng.uniform(-2, 0)))
                for prompt, token in ((int(p), rng.integers(counts[p])) for p in rng.integers(len(prompts), size=5))
            ),
            key=lambda each: -each.local_error,
        )
        inherited = None if kind == "attn.scores" else float(10 ** rng.uniform(-3, 0))
        reason = "nothing captured leads to it" if status == "unchecked" else ""
        own = local / size if status == "violated" else None
        return SiteError(
            name,
            status,
            local,
            1.7 * local,
            2e-6,
            own,
            inherited,
            reason,
            int(rng.integers(len(prompts))),
            tuple(worst),
        )

    every = (
        "embed",
        *(f"blocks.{layer}.{kind}" for layer in range(layers) for kind in KINDS),
        "ln_final.out",
        "logits",
    )
    sites = tuple(site(name) for name in every)
    strips = tuple(
        TokenErrors(name, prompt, *(tuple((10 ** rng.uniform(-4, 0, count)).tolist()) for _ in range(2)))
        for name in every if name in ("embed", "logits") or name.endswith("resid_post") for prompt, count in enumerate(counts)
    )  # fmt: skip
    fault = next(each for each in sites if each.site == "blocks.1.attn.v")
    cause = Cause("rotary-base", "rotary base 10,000 instead of 500,000", fault.local_error, 3e-7)
    divergence = Divergence(
        fault.site, (fault.site,), "code", fault.local_error, fault.worst_token_error, 0, fault.tolerance, fault.own_error, fault.inherited_error,
        "", (1,), 0, cause, (Tried(cause.name, 5, cause.words, cause.after), Tried("rotary-style", 2, "pairs of neighbours", 0.31)),
    )  # fmt: skip
    shown = {
        "tokens": (TokenDifference(0, "The capital", 0, 0, Token(1, "<bos>"), Token(100, "The"), "'<bos>' is not put in front"),),
        "spec": (Difference("blocks.*.attn.rotary.theta", "500,000", "10,000", tuple(range(layers))),),
        "divergences": (divergence,),
        "tensors": tuple(
            Tensor(f"blocks.{layer}.attn.W_V", "q4_0", 0.08 + 0.01 * layer, 0.1, 0.09, layer != 1, "rows permuted" if layer == 1 else "")
            for layer in range(layers)
        ),
        "flips": (Flips("blocks.0.mlp.expert_index", 0, 2, 1, 3e-4, 1),),
        "nearer": (Nearer("logits", 1e-7, 2e-2),),
        "budget": budget(layers, rng),
        "mechanisms": Mechanisms(
            (InfluenceAgreement(0, "alti", 4, 0.912, 0.31, 3, 4, (3,)),),
            (
                MotifAgreement(
                    "induction", 0.87,
                    (
                        HeadAgreement("induction", "a1.h0", 0.9, 0.2, 0.1, False),
                        HeadAgreement("previous token", "a0.h1", 0.8, 0.75, 0.1, True),
                    ),
                    ("a2.h1", "a2.h2", "a3.h0", "a3.h1"),
                ),
            ),
            "16 sequences", (LensAgreement(0, 0.95, 1.25, "blocks.2.resid_post", "blocks.1.resid_post", "", True),),
            0.95, ("induction is lost",), ("a note about mechanisms",),
        ),
        "notes": ("a note about the candidate",),
    }  # fmt: skip
    made = Candidate(
        info(name, "q4_0"), "diverges", f"diverges at {fault.site}: {cause.words}",
        sites=sites, by_token=strips, resolution=0.0156,
        outputs=tuple(
            Outputs(at, count, *sorted((10 ** rng.uniform(-3, 0, 2)).tolist()), 0, *rng.uniform(0.1, 0.9, 2).tolist())
            for at, count in enumerate(counts)
        ),
        by_prompt=tuple(
            PromptErrors(at, fault.site, 1e-2 * (at + 1), 2e-6, 5e3 * (at + 1), float(rng.uniform(0.1, 0.5))) for at in range(len(prompts))
        ),
        **shown,
    )  # fmt: skip
    return evolve(made, **fields)


def budget(layers, rng):
    costs = sorted((10 ** rng.uniform(-5, -1, layers)).tolist(), reverse=True)
    total = math.fsum(costs)
    swaps = tuple(
        Swap(
            (f"blocks.{at}.mlp.W_out",),
            "q4_0",
            4096,
            2304,
            0.08,
            Distance(kl, kl / 4, 0.97),
            kl / total,
            math.fsum(costs[: at + 1]) / total,
        )
        for at, kl in enumerate(costs)
    )
    return Budget(
        "half of it is in blocks.0.mlp.W_out", 8, 2, None, None, swaps, total, Distance(1.4 * total, None, 0.9), Distance(1.5 * total, None, 0.88),
        Distance(0.1 * total, None, 0.99), (Unswapped(("logits.W_U",), "It is tied."),), ("The costs do not add up.",),
    )  # fmt: skip
