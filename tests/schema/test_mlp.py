"""The MLP, plain and gated, dense and of experts, in plain loops."""

import numpy as np
import pytest
from attrs import evolve

from llmtrace.errors import ModelOpenError
from llmtrace.schema.sound import sound
from llmtrace.spec import Clamp, GatedMlp, Groups, Mlp, Moe, Norm, Shared
from tests.specs import EXPERTS, capture, equations, model, sequential

IDS = (1, 4, 2, 7, 1, 9)
ACT = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.where(x > 0, x * x, 0),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


def run(mlp, seed=0):
    built = equations(model(sequential(mlp=mlp)), seed)
    at = "blocks.0.mlp."
    signals = capture(built, IDS)
    short = {name.removeprefix(at): array for name, array in signals.items() if name.startswith(at)}
    weights = {name.removeprefix(at): array for name, array in built.weights.items() if name.startswith(at)}
    return signals["blocks.0.ln2.out"], short, weights


@pytest.mark.parametrize("act", ACT)
@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_mlp(act, bias):
    x, s, w = run(Mlp(10, act, bias))
    assert ("b_in" in w) == bias
    pre = x @ w["W_in"] + w.get("b_in", 0)
    np.testing.assert_allclose(s["pre"], pre, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(s["post"], ACT[act](pre), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(s["out"], ACT[act](pre) @ w["W_out"] + w.get("b_out", 0), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("act", ACT)
def test_a_gated_mlp_activates_the_gate_and_not_the_linear_half(act):
    x, s, w = run(GatedMlp(10, act, bias=True))
    gate, linear = x @ w["W_gate"] + w["b_gate"], x @ w["W_in"] + w["b_in"]
    np.testing.assert_allclose(s["pre"], gate, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(s["pre_linear"], linear, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(s["post"], ACT[act](gate) * linear, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(s["out"], s["post"] @ w["W_out"] + w["b_out"], rtol=1e-11, atol=1e-13)


def test_a_clamp_bounds_the_gate_from_above_and_the_linear_half_on_both_sides():
    x, s, w = run(GatedMlp(10, "silu", clamp=Clamp(0.3)))
    gate, linear = x @ w["W_gate"], x @ w["W_in"]
    np.testing.assert_allclose(s["pre"], gate, rtol=1e-12, atol=1e-14)
    assert gate.max() > 0.3 > -0.3 > gate.min()
    expected = ACT["silu"](np.where(gate > 0.3, 0.3, gate)) * (np.clip(linear, -0.3, 0.3) + 1)
    np.testing.assert_allclose(s["post"], expected, rtol=1e-11, atol=1e-14)


def test_a_norm_stands_before_the_last_matrix():
    x, s, w = run(GatedMlp(10, "silu", inner_norm=Norm(1e-3, over="d_mlp", bias=True)))
    product = ACT["silu"](x @ w["W_gate"]) * (x @ w["W_in"])
    size = np.sqrt((product**2).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(s["post"], product / size * w["inner_norm.w"] + w["inner_norm.b"], rtol=1e-11)
    np.testing.assert_allclose(s["out"], s["post"] @ w["W_out"], rtol=1e-11, atol=1e-13)


def test_xielu_has_four_numbers():
    torch = pytest.importorskip("torch")
    activations = pytest.importorskip("transformers.activations")
    built = equations(model(sequential(mlp=Mlp(10, "xielu"))))
    at = "blocks.0.mlp."
    numbers = {"alpha_p": 1.3, "alpha_n": 0.9, "beta": 0.4, "eps": -0.3}
    weights = dict(built.weights) | {at + name: np.array([number]) for name, number in numbers.items()}
    signals = capture(evolve(built, weights=weights), IDS)
    theirs = activations.XIELUActivation(1.3, 0.9, 0.4, -0.3, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs._xielu_python(torch.from_numpy(signals[at + "pre"])).numpy()
    sides = [signals[at + "pre"] > 0, signals[at + "pre"] < -0.3]
    assert all(side.any() for side in (*sides, ~(sides[0] | sides[1])))
    np.testing.assert_allclose(signals[at + "post"], expected, rtol=1e-9, atol=1e-12)


def plain_expert(w, e, x, m):
    """One expert that is not gated."""
    inner = ACT[m.act](x @ w["W_in"][e] + (w["b_in"][e] if m.bias else 0))
    return inner @ w["W_out"][e] + (w["b_out"][e] if m.bias else 0)


def expert(w, e, x, m):
    """One expert on one token, in its own words."""
    if isinstance(m, Mlp):
        return plain_expert(w, e, x, m)
    gate = x @ w["W_gate"][e] + (w["b_gate"][e] if m.bias else 0)
    linear = x @ w["W_in"][e] + (w["b_in"][e] if m.bias else 0)
    if m.clamp:
        gate, linear = np.minimum(gate, m.clamp.limit), np.clip(linear, -m.clamp.limit, m.clamp.limit) + 1
    return (ACT["silu"](gate) * linear) @ w["W_out"][e] + (w["b_out"][e] if m.bias else 0)


def choose(m, logits, correction):
    """Which experts one token takes, best first, and how much of each."""
    scores = {
        "softmax": np.exp(logits) / np.exp(logits).sum(),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "topk_softmax": logits,
        "topk_sigmoid": logits,
        "sparsemixer": logits,
    }[m.scoring]
    ranked, open_to = scores + correction, range(m.experts)
    if m.groups:
        size = m.experts // m.groups.count
        every = [range(size * g, size * g + size) for g in range(m.groups.count)]
        every.sort(key=lambda group: -sum(sorted(ranked[list(group)])[-m.groups.best :]))
        open_to = [e for group in every[: m.groups.choices] for e in group]
    best = sorted(open_to, key=lambda e: (-ranked[e], e))[: m.choices]
    mix = np.array([scores[e] for e in best])
    if m.scoring == "topk_softmax":
        mix = np.exp(mix) / np.exp(mix).sum()
    if m.scoring == "topk_sigmoid":
        mix = 1 / (1 + np.exp(-mix))
    if m.scoring == "sparsemixer":
        shares, left = [], list(range(m.experts))
        for e in best:
            near = [j for j in left if logits[e] - logits[j] <= m.near * max(abs(logits[j]), logits[e])]
            shares.append(np.exp(logits[e]) / np.exp(logits[near]).sum())
            left.remove(e)
        mix = np.array(shares)
    if m.renormalise:
        mix = mix / (mix.sum() + m.eps)
    return best, m.scale * mix


@pytest.mark.parametrize(
    "m",
    [
        EXPERTS,
        evolve(EXPERTS, shared=None, renormalise=False),
        evolve(EXPERTS, shared=Shared(GatedMlp(6, "silu"))),
        Moe(5, 2, GatedMlp(7, "silu"), scoring="sigmoid", correction=True, scale=2.0, renormalise=True),
        Moe(5, 3, GatedMlp(7, "silu"), scoring="topk_softmax"),
        Moe(5, 3, GatedMlp(7, "silu"), scoring="topk_sigmoid", correction=True, renormalise=True, eps=0.1),
        Moe(5, 2, GatedMlp(7, "silu"), scoring="sparsemixer", near=0.7),
        Moe(5, 2, Mlp(7, "relu2", bias=True), shared=Shared(Mlp(6, "relu2"))),
        Moe(5, 2, GatedMlp(7, "silu"), scoring="sigmoid", weighs="inputs"),
        Moe(6, 2, GatedMlp(7, "silu"), scoring="sigmoid", correction=True, groups=Groups(3, 2, 2)),
        Moe(6, 2, GatedMlp(7, "silu"), groups=Groups(3, 1)),
    ],
)
def test_a_mixture_of_experts_token_by_token(m):
    x, s, w = run(m)
    correction = w.get("b_correction", np.zeros(m.experts))
    for t in range(len(IDS)):
        logits = x[t] @ w["W_router"] + w.get("b_router", 0)
        best, mix = choose(m, logits, correction)
        assert list(s["expert_index"][t]) == best
        np.testing.assert_allclose(s["router_weights"][t], mix, rtol=1e-11)
        if m.weighs == "inputs":
            out = sum(expert(w, e, share * x[t], m.expert) for share, e in zip(mix, best, strict=True))
        else:
            out = sum(share * expert(w, e, x[t], m.expert) for share, e in zip(mix, best, strict=True))
        if m.shared:
            act = {"gelu": None}.get(m.shared.expert.act, ACT.get(m.shared.expert.act))
            plain = isinstance(m.shared.expert, Mlp)
            gate = x[t] @ w["shared.W_in" if plain else "shared.W_gate"]
            if act is None:
                from math import erf

                act = lambda v: np.array([0.5 * each * (1 + erf(each / 2**0.5)) for each in v])  # noqa: E731
            part = (act(gate) * (1 if plain else x[t] @ w["shared.W_in"])) @ w["shared.W_out"]
            if m.shared.gated:
                part = part / (1 + np.exp(-(x[t] @ w["shared.W_mix"])))
            np.testing.assert_allclose(s["shared_out"][t], part, rtol=1e-10, atol=1e-13)
            out = out + part
        np.testing.assert_allclose(s["out"][t], out, rtol=1e-10, atol=1e-12)


def test_a_correction_moves_the_choice_and_not_the_weights():
    m = Moe(4, 1, GatedMlp(7, "silu"), scoring="sigmoid", correction=True)
    built = equations(model(sequential(mlp=m)))
    weights = dict(built.weights) | {"blocks.0.mlp.b_correction": np.array([0.0, 0, 9, 0])}
    signals = capture(evolve(built, weights=weights), IDS)
    assert set(signals["blocks.0.mlp.expert_index"].ravel()) == {2}
    expected = 1 / (1 + np.exp(-signals["blocks.0.mlp.router"][:, 2:3]))
    np.testing.assert_allclose(signals["blocks.0.mlp.router_weights"], expected, rtol=1e-12)


def test_equal_scores_are_taken_by_index():
    m = Moe(4, 2, GatedMlp(7, "silu"))
    built = equations(model(sequential(mlp=m)))
    weights = dict(built.weights) | {"blocks.0.mlp.W_router": np.zeros((12, 4))}
    assert capture(evolve(built, weights=weights), IDS)["blocks.0.mlp.expert_index"].tolist() == [[0, 1]] * len(IDS)


@pytest.mark.parametrize(
    "m",
    [
        GatedMlp(10, "xielu"),
        Moe(5, 2, Mlp(7, "xielu")),
        Moe(5, 2, GatedMlp(7, "silu", inner_norm=Norm(1e-6, over="d_mlp"))),
        Moe(5, 2, GatedMlp(7, "silu"), shared=Shared(Mlp(7, "xielu"))),
        Moe(6, 2, GatedMlp(7, "silu"), groups=Groups(4, 2)),
        Moe(6, 3, GatedMlp(7, "silu"), groups=Groups(3, 1)),
        Moe(6, 2, GatedMlp(7, "silu"), groups=Groups(3, 4)),
        Moe(6, 2, GatedMlp(7, "silu"), groups=Groups(3, 2, 3)),
    ],
)
def test_what_the_equations_do_not_know_is_refused(m):
    with pytest.raises(ModelOpenError):
        sound(model(sequential(mlp=m)))
