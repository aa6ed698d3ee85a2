"""Hand-made documents, as `--json` prints them: what the viewer reads, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np

WORDS = ("The", " capital", " of", " France", " is")
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\u202eevil\u202c",
    "\x1b[31mred\x1b[0m",
    "\ud83d",
    "\x00",
    "a\n\tb",
    "",
    "&amp;\u2028",
    '"\\',
)


def tokens(texts: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"id": 100 + place, "text": text} for place, text in enumerate(texts)]


def causal(count: int, seed: int, signed: bool) -> np.ndarray:
    """A lower triangle; rows sum to one unless signed."""
    drawn = np.tril(np.random.default_rng(seed).gamma(0.8, size=(count, count)))
    drawn /= drawn.sum(-1, keepdims=True)
    return drawn * np.random.default_rng(seed + 1).choice([-8, 8], size=drawn.shape) if signed else drawn


def influence(
    texts: tuple[str, ...] = WORDS,
    *,
    method: str = "alti",
    signed: bool = False,
    layers: int = 6,
    heads: int = 3,
    matrix: bool = True,
    position: int = -1,
) -> dict[str, Any]:
    """One influence document about `position`, seeded."""
    count = len(texts)
    position %= count
    rows = causal(count, len(method), signed)
    rng = np.random.default_rng(7)
    grid: list[list[float | None]] = (rng.normal(size=(layers, heads)) ** 3).tolist()
    grid[0] = [None] * heads
    by_layer = rng.gamma(0.5, size=(layers, count)) * (rng.choice([-1, 1], size=(layers, count)) if signed else 1)
    by_layer[:, position + 1 :] = 0
    return {
        "schema_version": 1,
        "model": {
            "source": "/models/SmolLM2-135M-Instruct", "backend": "torch", "runtime": "PyTorch", "versions": {"torch": "2.13.0"},
            "fingerprint": "", "weights": "bfloat16", "device": "cpu", "preset": "shipped", "settings": {"attention": "sdpa"}, "notes": [],
            "capture_tolerance": 0.0,
        },
        "backend": "torch",
        "method": method,
        "contract": {
            "output": "logit of the target at the position", "features": "the residual stream at each source position",
            "process": "contributions of layers multiplied from first to last", "fixed": "patterns, norm denominators",
            "unit": "logits" if signed else "share (rows sum to 1)",
        },
        "tokens": tokens(texts),
        "position": position,
        "target": {"id": 7042, "text": " Paris"},
        "foil": None,
        "scores": rows[position].tolist(),
        "completeness_gap": 3.1e-6,
        "matrix": rows.tolist() if matrix else None,
        "predictions": [{"id": 200 + place, "text": f" guess{place}"} for place in range(count - 1)] + [{"id": 7042, "text": " Paris"}],
        "parts": [[f"blocks.{layer}.mlp_out", float(value)] for layer, value in enumerate(rng.normal(size=layers))] + [["attention biases", 0.25]]
        if signed
        else [],
        "heads": grid if signed else None,
        "layers": by_layer.tolist(),
        "table": [
            {"name": name, "layer": layer, "head": head, "score": float(rng.random()), "rows": 4, "chance": 0.4}
            for name in ("previous-token", "first-token") for layer in range(layers) for head in range(heads)
        ],
        "warnings": ["The prompt has no BOS token."],
        "notes": [["share of the first position", float(rows[position][0])], ["computed in", "float64"]],
    }  # fmt: skip


def lens(texts: tuple[str, ...] = WORDS, layers: int = 6) -> dict[str, Any]:
    """A lens whose target climbs from the last rank to the first."""
    rng = np.random.default_rng(3)
    sites = ["embed", *(f"blocks.{layer}.resid_post" for layer in range(layers))]
    pool = (" Paris", " the", " a", " located", "\n", " Lyon", " known", "</b>", " France")
    points = []
    for place, site in enumerate(sites):
        share = (place / layers) ** 3 * 0.8
        rest = sorted(rng.dirichlet(np.ones(4)) * (1 - share) * 0.6, reverse=True)
        top = [(" Paris", share)] + [
            (str(text), float(p)) for text, p in zip(rng.choice(pool[1:], 4, replace=False), rest, strict=True)
        ]
        top.sort(key=lambda pair: -pair[1])
        rank = next(i for i, (text, _) in enumerate(top) if text == " Paris")
        points.append({
            "site": site, "top": [{"token": {"id": pool.index(text), "text": text}, "probability": p} for text, p in top],
            "target_rank": rank + 1, "target_probability": share,
        })  # fmt: skip
    base = influence(texts)
    return {
        "schema_version": 1, "model": base["model"], "backend": "torch", "tokens": base["tokens"], "position": base["position"],
        "target": {"id": 0, "text": " Paris"}, "layers": points,
    }  # fmt: skip
