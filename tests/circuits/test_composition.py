"""κ against the matrices that it never forms, against chance, and on the model whose answer is known."""

import numpy as np
import pytest
from attrs import evolve
from scipy.stats import ortho_group

import llmtrace
from llmtrace.circuits import Edge
from llmtrace.circuits.composition import Composition
from llmtrace.errors import SignalUnavailableError, UnsupportedModelError
from llmtrace.schema.evaluate import Equations
from llmtrace.spec import Latent, Norm
from tests import specs

HEADWISE = Norm(1e-5, over="d_head")
MODELS = {
    "plain": specs.model(specs.sequential(), specs.sequential()),
    "norms after": specs.model(specs.sequential(post=specs.RMS), specs.sequential(post=specs.RMS)),
    "no norm before": specs.model(specs.POST_ONLY, specs.POST_ONLY),
    "norms of q and k": specs.model(*[specs.sequential(evolve(specs.GQA, q_norm=HEADWISE, k_norm=HEADWISE))] * 2),
    "a norm of z": specs.model(
        *[specs.sequential(evolve(specs.GQA, d_value=5, z_norm=Norm(1e-5, over="d_value")))] * 2
    ),
    "norms of all heads together": specs.model(
        *[
            specs.sequential(
                evolve(specs.GQA, q_norm=Norm(1e-5, over="head d_head"), z_norm=Norm(1e-5, over="head d_value"))
            )
        ]
        * 2
    ),
}


def whole(equations, edge):
    """By the definition, with d_model x d_model matrices."""
    w, a = equations.weights, equations.spec.blocks[0].attention

    def of(node):
        at, kv = f"blocks.{node.layer}.", node.head // (a.heads // a.kv_heads)
        read, written = (
            np.diag(w[at + name]) if at + name in w else np.eye(specs.WIDTH) for name in ("ln1.w", "attn_post.w")
        )

        def normed(n, head, width):
            weight = w.get(f"{at}attn.{n}_norm.w", np.ones(width))
            return np.diag(weight if weight.ndim == 1 else weight[head])

        turned = [normed("q", node.head, a.d_head), normed("k", kv, a.d_head)]
        Q, K = read @ w[at + "attn.W_Q"][node.head] @ turned[0], read @ w[at + "attn.W_K"][kv] @ turned[1]
        return Q @ K.T, read @ w[at + "attn.W_V"][kv] @ normed("z", node.head, a.d_value) @ w[at + "attn.W_O"][
            node.head
        ] @ written

    (_, ov1), (qk2, ov2) = of(edge.source), of(edge.target)
    second = {"q": qk2, "k": qk2.T, "v": ov2}[edge.reads]
    return np.sqrt(len(ov1)) * np.linalg.norm(ov1 @ second) / np.linalg.norm(ov1) / np.linalg.norm(second)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reads", ["q", "k", "v"])
def test_kappa_is_what_its_definition_gives(name, reads):
    equations = specs.equations(MODELS[name])
    composition = Composition(equations)
    for one, two in ((0, 0), (3, 1), (1, 2)):
        edge = Edge.parse(f"a0.h{one}->a1.h{two}<{reads}>")
        assert composition.kappa(edge) == pytest.approx(whole(equations, edge), rel=1e-9)


def test_heads_whose_bases_are_turned_at_random_have_kappa_one():
    """E[raw²] = 1/d over Haar rotations, hence a root mean square of 1."""
    equations = specs.equations(MODELS["no norm before"])
    edge = Edge.parse("a0.h0->a1.h0<k>")
    found = []
    for turn in ortho_group.rvs(specs.WIDTH, size=400, random_state=0):
        turned = {
            "blocks.0.attn.W_O": equations.weights["blocks.0.attn.W_O"] @ turn,
            "blocks.0.attn_post.w": np.ones(specs.WIDTH),
        }
        found.append(Composition(Equations(equations.spec, {**equations.weights, **turned})).kappa(edge) ** 2)
    assert np.mean(found) == pytest.approx(1.0, abs=0.1)


def test_the_hand_built_model_composes_where_it_was_built_to():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        composition = Composition(model.equations)
        found = {
            f"a0.h{one}->a1.h{two}<{reads}>": composition.kappa(Edge.parse(f"a0.h{one}->a1.h{two}<{reads}>"))
            for one in (0, 1)
            for two in (0, 1)
            for reads in "qkv"
        }
    assert found.pop("a0.h0->a1.h0<k>") == pytest.approx(1.98, abs=0.01)
    assert max(found.values()) < 0.02


def test_a_head_that_projects_through_a_latent_has_no_kappa():
    latent = evolve(specs.GQA, kv_heads=4, biases="", kv_latent=Latent("kv_rank", 3), shared=2)
    spec = specs.model(*[specs.sequential(latent)] * 2)
    with pytest.raises(
        UnsupportedModelError, match=r"a0\.h0 makes its queries, keys or values in more than one product"
    ):
        Composition(specs.equations(spec)).kappa(Edge.parse("a0.h0->a1.h0<k>"))


def test_a_head_whose_mixture_goes_on_in_another_way_has_no_kappa():
    equations = specs.equations(specs.model(*[specs.sequential(evolve(specs.GQA, mixed=False))] * 2))
    with pytest.raises(UnsupportedModelError, match=r"What a0\.h0 hands on does not follow from its values"):
        Composition(equations).kappa(Edge.parse("a0.h0->a1.h0<k>"))


def test_without_weights_there_is_no_kappa():
    with pytest.raises(SignalUnavailableError, match="not at hand"):
        Composition(Equations(MODELS["plain"])).kappa(Edge.parse("a0.h0->a1.h0<k>"))
