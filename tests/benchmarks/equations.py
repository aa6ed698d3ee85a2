"""What the equations cost over the least that NumPy can do: the same decoder written out by hand, in the same type.

The two must agree, or the comparison means nothing.
"""

from __future__ import annotations

import numpy as np

from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import steps
from llmtrace.spec import Attention, Block, Branch, GatedMlp, ModelSpec, Norm, PreNorm, Rotary
from tests.benchmarks.paired import Ratio, paired

LAYERS, WIDTH, HEADS, KV, D_HEAD, D_MLP, VOCAB, TOKENS = 6, 256, 8, 4, 32, 768, 2000, 128


def spec() -> ModelSpec:
    """A Llama-like decoder."""
    norm = Norm(1e-5)
    attention = Attention(HEADS, KV, D_HEAD, D_HEAD, D_HEAD**-0.5, rotary=Rotary(1e4, D_HEAD))
    norms = (PreNorm("ln1", "resid_pre", norm), PreNorm("ln2", "resid_mid", norm))
    block = Block(norms, (Branch("attn", "ln1.out", attention), Branch("mlp", "ln2.out", GatedMlp(D_MLP, "silu"))))
    return ModelSpec("benchmark", WIDTH, VOCAB, None, (block,) * LAYERS, norm)


def by_hand(w: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits, with nothing kept and no table read."""
    length = len(tokens)
    angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(0, D_HEAD, 2) / D_HEAD)
    cos, sin = np.cos(angles)[None], np.sin(angles)[None]
    hidden = np.triu(np.ones((length, length), bool), 1)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def turn(x):
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    x = w["embed.W_E"][tokens]
    for layer in range(LAYERS):
        at = f"blocks.{layer}."
        y = norm(x, w[at + "ln1.w"])
        q, k, v = (y @ w[at + f"attn.W_{name}"] for name in "QKV")
        q, k = turn(q), turn(k)
        k, v = (part.repeat(HEADS // KV, axis=0) for part in (k, v))
        scores = q @ k.swapaxes(1, 2) * D_HEAD**-0.5
        scores[:, hidden] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        z = scores / scores.sum(-1, keepdims=True) @ v
        x = x + z.swapaxes(0, 1).reshape(length, -1) @ w[at + "attn.W_O"].reshape(-1, WIDTH)
        y = norm(x, w[at + "ln2.w"])
        gate = y @ w[at + "mlp.W_gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w[at + "mlp.W_in"])) @ w[at + "mlp.W_out"]
    return norm(x, w["ln_final.w"]) @ w["unembed.W_U"]


def measure(rounds: int) -> list[Ratio]:
    """The reference's run of `logits` and of everything, over the hand-written pass."""
    model, rng = spec(), np.random.default_rng(0)
    shapes = {weight.name: weight.shape for step in steps(model).values() for weight in step.weights.values()}
    weights = {name: rng.normal(0, 0.06, shape) for name, shape in shapes.items()}
    tokens = rng.integers(0, VOCAB, TOKENS)
    equations = Equations(model, weights)
    inputs = {"tokens": tokens, "positions": np.arange(TOKENS)}
    sites = [site for site, step in equations.steps.items() if not step.equation.on_request]
    (logits,) = (array for _, array in equations.run(inputs, ["logits"]))
    if not np.allclose(logits, by_hand(weights, tokens), rtol=1e-9, atol=1e-9):
        raise SystemExit("The equations and the pass written by hand disagree: the measurement is void.")
    variants = {
        "by hand in NumPy": lambda: by_hand(weights, tokens),
        "equations: logits": lambda: dict(equations.run(inputs, ["logits"])),
        "equations: every site": lambda: dict(equations.run(inputs, sites)),
    }
    return paired(f"float64 Llama {LAYERS} x {WIDTH}, {TOKENS} tokens", variants, rounds)
