"""How maps, trajectories and heads of two models are compared, and told: by SciPy, and by hand."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import llmtrace
from llmtrace.circuits import motifs
from llmtrace.comparison.mechanisms import LOW, HeadAgreement, InfluenceAgreement, LensAgreement, MotifAgreement
from llmtrace.comparison.outputs import Outputs
from llmtrace.comparison.reasons import Reasons, _findings, _lenses_agree, _maps_agree, _motifs_agree, spearman
from llmtrace.comparison.run import Run
from llmtrace.comparison.sides import Side
from llmtrace.influence import influence, lens

PROMPT = "c a f e b o d c a f e b"

VALUES = st.lists(st.integers(-3, 3), min_size=2, max_size=12)


@settings(deadline=None)
@given(st.data())
def test_a_rank_correlation_is_scipys(data):
    one = data.draw(VALUES)
    two = data.draw(st.lists(st.integers(-3, 3), min_size=len(one), max_size=len(one)))
    found = spearman(np.array(one), np.array(two))
    if len(set(one)) > 1 and len(set(two)) > 1:
        assert found == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)
    else:
        assert found == float(len(set(one)) == len(set(two)) == 1)


@pytest.fixture(scope="module")
def asked():
    """An influence map and a lens of the embedded model, to be changed by hand."""
    with llmtrace.open("builtin:induction", backend="reference") as model:
        (one,) = influence(model, PROMPT, ("alti",))
        return one, lens(model, PROMPT)


def test_positions_with_the_same_prediction_and_another_map_are_named():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        (one,) = influence(model, PROMPT, ("alti",))
    turned = one.matrix.copy()
    turned[9, :10] = turned[9, 9::-1]
    found = _maps_agree(0, one, evolve(one, matrix=turned))
    assert found.other_reasons == (9,)
    assert found.worst_position == 9
    assert found.worst == pytest.approx(
        stats.spearmanr(np.round(one.matrix[9, :10], 3), np.round(turned[9, :10], 3)).statistic, abs=0.1
    )
    assert found.worst < LOW
    other = evolve(one.predictions[0], id=15 - one.predictions[9].id)
    elsewhere = evolve(one, matrix=turned, predictions=(*one.predictions[:9], other, *one.predictions[10:]))
    assert _maps_agree(0, one, elsewhere).other_reasons == ()


def test_maps_are_compared_row_by_row_from_five_sources_on_as_scipy_ranks_them(asked):
    """Two random maps; the predictions of every third position are others."""
    one, _ = asked
    random = np.random.default_rng(1)
    tokens = len(one.tokens)
    ours, theirs = (
        random.normal(size=(tokens, tokens)) * 10.0 ** random.integers(-4, 4, (tokens, 1)) for _ in range(2)
    )
    theirs[8] = 1.5 * ours[8]
    theirs[11] = ours[11]
    swapped = np.argsort(ours[11, :12])[5:7]
    theirs[11, swapped] = ours[11, swapped[::-1]]
    others = tuple(
        evolve(each, id=15 - each.id) if place % 3 == 0 else each for place, each in enumerate(one.predictions)
    )
    found = _maps_agree(4, evolve(one, matrix=ours), evolve(one, matrix=theirs, predictions=others))
    correlations = {}
    for place in range(4, tokens):
        rows = (each[place, : place + 1] for each in (ours, theirs))
        correlations[place] = stats.spearmanr(*(np.round(1000 * row / np.abs(row).max()) for row in rows)).statistic
    assert (found.prompt, found.method, found.positions) == (4, "alti", tokens - 4)
    assert found.mean == pytest.approx(np.mean(list(correlations.values())))
    assert found.worst == pytest.approx(min(correlations.values()))
    assert correlations[found.worst_position] == pytest.approx(found.worst)
    same = [place for place in correlations if place % 3]
    assert found.same_answer == len(same)
    assert found.other_reasons == tuple(place for place in same if correlations[place] < 0.8)
    assert 0 < len(found.other_reasons) < len(same)
    assert 0.8 < correlations[11] < 0.999 < correlations[8]
    short = evolve(one, tokens=one.tokens[:4])
    assert _maps_agree(0, short, short) is None
    assert _maps_agree(0, one, evolve(one, matrix=None)) is None


def test_rounding_orders_nothing():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        (one,) = influence(model, PROMPT, ("alti",))
    noise = np.random.default_rng(0).normal(0, 1e-6, one.matrix.shape)
    assert _maps_agree(0, one, evolve(one, matrix=one.matrix + noise)).worst == pytest.approx(1)


def test_the_lens_says_where_it_parts():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        one = lens(model, PROMPT)
    *before, last = one.layers
    later = evolve(one, layers=(*(evolve(each, target_probability=1 / 16, target_rank=2) for each in before), last))
    found = _lenses_agree(0, one, later)
    assert found.largest == pytest.approx(np.log(16), abs=1e-4)
    assert (found.settles_reference, found.settles_candidate) == ("blocks.1.resid_mid", "blocks.1.resid_post")
    assert found.same_answer


def test_trajectories_of_the_lens_are_compared_in_logarithms(asked):
    """By SciPy, of probabilities given by hand; one of them is nought, which counts as 1e-300."""
    _, one = asked
    sides = []
    for chances, ranks in (
        ([0.01, 0.2, 0.5, 0.25, 0.9], [9, 1, 2, 1, 1]),
        ([0.02, 0.1, 0.0, 0.4, 0.3], [1, 1, 1, 2, 2]),
    ):
        points = [
            evolve(point, target_probability=chance, target_rank=rank)
            for point, chance, rank in zip(one.layers, chances, ranks, strict=True)
        ]
        sides.append(evolve(one, layers=tuple(points)))
    found = _lenses_agree(3, *sides)
    assert found.correlation == pytest.approx(stats.spearmanr([1, 2, 4, 3, 5], [2, 3, 1, 5, 4]).statistic)
    assert found.largest == pytest.approx(np.log(0.5) + 300 * np.log(10))
    assert (found.prompt, found.largest_at) == (3, one.layers[2].site)
    turned = _lenses_agree(3, *reversed(sides))
    assert (turned.largest, turned.largest_at) == (pytest.approx(found.largest), found.largest_at)
    assert (found.settles_reference, found.settles_candidate) == (one.layers[3].site, "")
    assert not found.same_answer


def test_a_prediction_that_is_as_likely_as_the_best_is_the_same_answer():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        one = lens(model, PROMPT)
    *before, last = one.layers
    (token, share), *rest = last.top
    tied = evolve(last, top=((token, share * (1 + 1e-9)), *rest), target_rank=2)
    other = evolve(tied, top=((token, share * 1.01), *rest))
    assert _lenses_agree(0, one, evolve(one, layers=(*before, tied))).same_answer
    assert not _lenses_agree(0, one, evolve(one, layers=(*before, other))).same_answer


@pytest.mark.parametrize(("score", "kept"), [(0.05, True), (0.19, False), (0.3, False)])
def test_a_head_that_is_expected_below_chance_is_kept_below_it(score, kept):
    with llmtrace.open("builtin:induction", backend="reference") as model:
        ours = motifs(model, ["self"])
    (match,) = ours["self"].heads
    rare = evolve(match, score=0.0, chance=0.2, effect=-0.2)
    one = evolve(ours, found=(evolve(ours["self"], heads=(rare,)),))
    scores = {"head": np.full_like(ours["self"].scores["head"], score)}
    two = evolve(ours, found=(evolve(ours["self"], heads=(), scores=scores),))
    assert _motifs_agree(one, two)[0].heads[0].kept is kept


@pytest.mark.parametrize(("score", "kept"), [(0.7, True), (0.5, True), (0.49, False), (0.45, False), (0.1, False)])
def test_a_head_is_kept_with_half_of_what_it_does_beyond_chance(score, kept):
    """0.8 where chance gives 0.2: half of the effect is left from 0.5 on."""
    ours, (match, _) = induction()
    one = with_heads(ours, evolve(match, score=0.8, chance=0.2, effect=0.6))
    two = with_heads(ours, scores={role: np.full((2, 2), score) for role in ours["induction"].motif.roles})
    (head,) = _motifs_agree(one, two)[0].heads
    assert (head.node, head.reference, head.candidate, head.chance, head.kept) == (
        str(match.node),
        0.8,
        score,
        0.2,
        kept,
    )


def test_a_head_that_plays_another_role_now_is_gained_and_once():
    ours, (first, last) = induction()
    assert first.role != last.role
    other = evolve(first, role=last.role)
    (found,) = _motifs_agree(with_heads(ours, first), with_heads(ours, first, other, other, last))
    assert found.gained == (str(first.node), str(last.node))
    assert _motifs_agree(with_heads(ours, first, last), with_heads(ours, first))[0].gained == ()


def test_all_heads_of_the_role_that_the_others_lead_to_are_ranked_as_scipy_does():
    ours, _ = induction()
    first, last = ours["induction"].motif.roles
    one, two = np.array([[0.1, 0.4], [0.3, np.nan]]), np.array([[0.5, 0.9], [0.2, np.nan]])

    def correlation(a, b):
        sides = ({first: one, last: each} for each in (a, b))
        return _motifs_agree(*(with_heads(ours, scores=each) for each in sides))[0].correlation

    assert correlation(one, two) == pytest.approx(stats.spearmanr([0.1, 0.4, 0.3], [0.5, 0.9, 0.2]).statistic)
    assert correlation(one, np.ones((2, 2))) is None
    assert correlation(np.full((2, 2), np.nan), np.full((2, 2), np.nan)) is None


def induction():
    """The motif in the embedded model, with a head of each role."""
    with llmtrace.open("builtin:induction", backend="reference") as model:
        ours = motifs(model, ["induction"])
    roles = ours["induction"].motif.roles
    return ours, [next(match for match in ours["induction"].heads if match.role == role) for role in roles]


def with_heads(found, *heads, scores=None):
    """The motif with other heads, or other scores."""
    (one,) = found.found
    return evolve(found, found=(evolve(one, heads=heads, scores=scores or one.scores),))


def agreement(prompt=0, worst=0.5, at=6, same=3, others=(6,)):
    return InfluenceAgreement(prompt, "alti", 9, 0.9, worst, at, same, others)


def trajectory(prompt=0, correlation=0.1, same=True):
    return LensAgreement(prompt, correlation, 1.0, "embed", "", "", same)


def motif(lost, heads, gained):
    return MotifAgreement(
        "induction",
        0.5,
        tuple(HeadAgreement("i", f"a1.h{at}", 0.75, 0.25, 0.1, at >= lost) for at in range(heads)),
        gained,
    )


def test_what_differs_is_told_with_how_much_and_where():
    """The lowest correlation may be where the predictions are others: it is not said to be of those that are the same."""
    assert _findings([agreement(), agreement(1, 0.25, 8, 5, (4, 7)), agreement(2, -0.5, 7, 2, ())], [], []) == [
        "at 3 of 10 positions with the same prediction the influence maps correlate below 0.8 (lowest of all positions -0.50, prompt 3, position 7)"
    ]
    assert _findings([agreement(others=())], [], []) == []
    assert _findings([], [motif(4, 5, ("a0.h0", "a0.h1", "a0.h2", "a0.h3"))], []) == [
        "4 of 5 heads of induction are gone (a1.h0 0.75 → 0.25, a1.h1 0.75 → 0.25, a1.h2 0.75 → 0.25), and a0.h0, a0.h1, a0.h2 match instead"
    ]
    assert _findings([], [motif(0, 5, ("a0.h0",))], []) == []
    several = [trajectory(), trajectory(1, -0.25), trajectory(2, -0.75, same=False), trajectory(3, 0.8)]
    assert _findings([], [], several) == [
        "the lens takes another way in 2 of 4 prompts (lowest rank correlation -0.25, prompt 2)"
    ]


def test_one_is_one_in_what_differs():
    (maps,) = _findings([agreement(same=1)], [], [])
    assert maps.startswith("at 1 of 1 position with the same prediction")
    assert _findings([], [motif(1, 2, ("a0.h0",))], []) == [
        "1 of 2 heads of induction is gone (a1.h0 0.75 → 0.25), and a0.h0 matches instead"
    ]
    assert _findings([], [motif(1, 1, ())], []) == ["1 of 1 head of induction is gone (a1.h0 0.75 → 0.25)"]
    (way,) = _findings([], [], [trajectory()])
    assert way.startswith("the lens takes another way in 1 of 1 prompt (")


def test_the_share_of_the_same_predictions_is_of_all_tokens():
    """One of one and one of three are two of four."""
    predicted = [Outputs(0, 1, 0.0, 0.0, 0, 1.0, 0.0), Outputs(1, 3, 0.0, 0.0, 0, 1 / 3, 0.0)]
    with llmtrace.open("builtin:induction", backend="reference") as model:
        side = Side(model.info, model.equations, {}, model)
        run = Run(0, (0, 1, 6), {}, {}, ())
        assert Reasons(side, [run], lambda text: None).beside(side, predicted).same_answer == pytest.approx(0.5)


def test_the_references_mechanisms_are_found_once_for_all_candidates():
    """The first time both sides are run, then one."""
    with llmtrace.open("builtin:induction", backend="reference") as model:
        side = Side(model.info, model.equations, {}, model)
        reasons = Reasons(side, [Run(0, (0, 1, 6, 5, 2, 1), {}, {}, ())], lambda text: None)
        ran, run = [], model.session.run
        model.session.run = lambda request, observer: ran.append(request) or run(request, observer)
        found, counts = [], []
        for _ in range(3):
            found.append(reasons.beside(side, []))
            counts.append(len(ran) - sum(counts))
    assert found[0] == found[1] == found[2]
    assert counts == [2 * counts[2], counts[2], counts[2]]
    assert counts[2] > 2
