"""A fault shows at its own site and nowhere else; what cannot be compared is a verdict of its own."""

import math

import ml_dtypes
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from llmtrace.schema.blocks import ROUNDED
from llmtrace.schema.precision import BYTES, ROUNDOFF, Precision
from llmtrace.schema.verify import distance, ratio, verify
from llmtrace.spec import GatedMlp, Moe
from tests.specs import CLEAR, SPECS, capture, equations, inputs, model, sequential, specs

IDS = (1, 4, 2, 4, 9, 3)
FLOAT64 = Precision("float64", "float64")


def judge(built, signals, precision=FLOAT64):
    kinds = {
        site: Precision("int64", precision.accumulation) if site.endswith("expert_index") else precision
        for site in built.steps
    }
    return {found.site: found for found in verify(built, inputs(IDS) | signals, kinds)}


def violated(verdicts):
    return [site for site, found in verdicts.items() if found.status == "violated"]


def rounded(built, dtype):
    """A runtime that keeps every signal in 16 bits and computes in float32."""
    wide = evolve(built, dtype=np.float32)
    signals = dict(inputs(IDS))
    for site in wide.steps:
        array = wide.evaluate(site, lambda name: wide.cast(signals[name]))
        signals[site] = array if array.dtype.kind == "i" else array.astype(dtype)
    return signals


@pytest.mark.parametrize("name", CLEAR)
@pytest.mark.parametrize(
    ("dtype", "storage"), [(np.float32, "float32"), (np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")]
)
def test_rounding_is_no_fault(name, dtype, storage):
    built = equations(CLEAR[name])
    verdicts = judge(built, rounded(built, dtype), Precision(storage, "float32"))
    assert {found.status for found in verdicts.values()} == {"holds"}


@pytest.mark.parametrize("name", CLEAR)
def test_rounding_that_is_not_declared_is_found(name):
    built = equations(CLEAR[name])
    assert "blocks.0.mlp.out" in violated(
        judge(built, rounded(built, ml_dtypes.bfloat16), Precision("float32", "float32"))
    )


@given(specs(), st.data())
def test_a_planted_fault_is_located_at_its_own_site_and_nowhere_else(spec, data):
    built = equations(spec)
    sites = [site for site in built.steps if not site.endswith("expert_index")]
    site = data.draw(st.sampled_from(sites))
    clean = capture(built, IDS)[site]
    finite = np.isfinite(clean)
    if not clean[finite].any():
        return
    faulty = clean.copy()
    faulty[finite] = faulty[finite] * (1 + 1e-6)
    verdicts = judge(built, capture(built, IDS, {site: faulty}))
    assert violated(verdicts) == [site]
    assert verdicts[site].relative_error == pytest.approx(1e-6, rel=1e-3)


@given(st.integers(0, len(IDS) - 1))
def test_a_fault_of_one_token_is_seen_however_large_another_is(token):
    built = equations(SPECS["sequential"])
    out = capture(built, IDS)["blocks.0.mlp.out"]
    huge = (token + 1) % len(IDS)
    out[huge] *= 1e9  # as at the first position of real models
    signals = capture(built, IDS, {"blocks.0.mlp.out": out})
    faulty = signals["blocks.0.mlp_out"].copy()
    faulty[token] *= 1.01
    signals |= capture(built, IDS, {"blocks.0.mlp.out": out, "blocks.0.mlp_out": faulty})
    found = judge(built, signals, Precision("float32", "float32"))["blocks.0.mlp_out"]
    assert found.status == "violated"
    assert found.relative_error < found.tolerance < found.worst_token_error
    assert found.worst_token_error == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "site"),
    [
        ({"scale": 0.5}, "blocks.0.attn.scores"),
        ({"window": 3}, "blocks.0.attn.scores"),
        ({"softcap": 2.0}, "blocks.0.attn.scores"),
        ({"rotary": evolve(SPECS["sequential"].blocks[0].attention.rotary, theta=90.0)}, "blocks.0.attn.rot_q"),
        (
            {"rotary": evolve(SPECS["sequential"].blocks[0].attention.rotary, layout="interleaved")},
            "blocks.0.attn.rot_q",
        ),
        ({"biases": "QKV"}, "blocks.0.attn.out"),
    ],
)
def test_a_model_that_computes_something_else_is_found_at_the_first_site_that_differs(change, site):
    right = equations(SPECS["sequential"])
    block = right.spec.blocks[0]
    wrong = evolve(
        block, branches=(evolve(block.branches[0], module=evolve(block.attention, **change)), block.branches[1])
    )
    runs_wrong = evolve(right, spec=evolve(right.spec, blocks=(wrong, block)))
    assert violated(judge(right, capture(runs_wrong, IDS)))[0] == site


def test_a_small_error_of_all_tokens_is_a_fault_where_the_same_of_one_is_none():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    site, precision = "blocks.0.mlp.out", Precision("float32", "float32")
    limit = judge(built, signals, precision)[site].tolerance
    everywhere = signals[site] * (1 + 1.5 * limit)
    once = signals[site].copy()
    smallest = int((once**2).sum(-1).argmin())
    once[smallest] *= 1 + 1.5 * limit
    assert judge(built, signals | {site: everywhere}, precision)[site].status == "violated"
    assert judge(built, signals | {site: once}, precision)[site].status == "holds"


def test_two_faults_are_both_found():
    built = equations(SPECS["sequential"])
    clean = capture(built, IDS)
    first = capture(built, IDS, {"blocks.0.attn.z": clean["blocks.0.attn.z"] * 1.01})
    both = capture(
        built,
        IDS,
        {"blocks.0.attn.z": first["blocks.0.attn.z"], "blocks.1.mlp.post": first["blocks.1.mlp.post"] * 1.01},
    )
    assert violated(judge(built, both)) == ["blocks.0.attn.z", "blocks.1.mlp.post"]


def test_the_span_says_between_which_captured_signals_a_fault_lies():
    built = equations(SPECS["sequential"])
    clean = capture(built, IDS)
    faulty = capture(built, IDS, {"blocks.0.attn.scores": clean["blocks.0.attn.scores"] * 1.1})
    kept = {
        site: faulty[site]
        for site in ("blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "blocks.0.attn.v", "blocks.0.attn.z")
    }
    found = judge(built, kept)["blocks.0.attn.z"]
    assert found.status == "violated"
    assert found.span == ("blocks.0.attn.z", "blocks.0.attn.pattern", "blocks.0.attn.scores")


def test_a_derived_input_widens_the_tolerance():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    z = ("blocks.0.attn.rot_q", "blocks.0.attn.rot_k", "blocks.0.attn.v", "blocks.0.attn.z")
    near = judge(built, signals)["blocks.0.attn.z"].tolerance
    far = judge(built, {site: signals[site] for site in z})["blocks.0.attn.z"].tolerance
    assert far > near > 0


def test_what_nothing_captured_leads_to_is_unchecked_and_says_what_lacks():
    built = equations(SPECS["sequential"])
    found = judge(built, {"blocks.0.attn.z": capture(built, IDS)["blocks.0.attn.z"]})["blocks.0.attn.z"]
    assert found.status == "unchecked"
    assert "missing" in found.reason


def test_an_opaque_site_is_unchecked_and_its_readers_are_checked():
    built = equations(SPECS["mixer"])
    signals = capture(built, IDS)
    verdicts = judge(built, signals)
    assert verdicts["blocks.0.mixer_out"].status == "unchecked"
    faulty = judge(built, signals | {"blocks.0.resid_mid": signals["blocks.0.resid_mid"] * 1.1})
    assert violated(faulty)[0] == "blocks.0.resid_mid"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("site", ["blocks.0.attn.q", "blocks.0.mlp.post", "logits", "embed", "blocks.0.attn.pattern"])
def test_values_that_are_not_finite_are_a_verdict(site, value):
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    signals[site] = signals[site].copy()
    signals[site].flat[-1] = value
    found = judge(built, signals)[site]
    assert (found.status, found.reason) == ("violated", "holds NaN or infinite values")


@pytest.mark.filterwarnings("error")
def test_scores_that_are_all_nan_are_a_verdict_and_no_crash():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    signals["blocks.0.attn.scores"] = signals["blocks.0.attn.scores"] * np.nan
    verdicts = judge(built, signals)
    assert violated(verdicts) == ["blocks.0.attn.scores"]


def test_masks_that_differ_are_a_verdict():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    for value, place in ((0.0, (0, 0, -1)), (-np.inf, (0, -1, 0)), (-65504.0, (0, 0, -1))):
        changed = signals["blocks.0.attn.scores"].copy()
        changed[place] = value
        found = judge(built, signals | {"blocks.0.attn.scores": changed})["blocks.0.attn.scores"]
        assert (found.status, found.reason, found.relative_error) == ("violated", "the masks differ", math.inf)


def test_a_signal_that_is_all_zero_is_a_verdict_unless_it_should_be():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    found = judge(built, signals | {"blocks.0.mlp.out": np.zeros((6, 12))})["blocks.0.mlp.out"]
    assert (found.status, found.reason) == ("violated", "is all zero")
    silent = evolve(
        built,
        weights=dict(built.weights) | {"blocks.0.mlp.W_out": np.zeros((10, 12)), "blocks.0.mlp.b_out": np.zeros(12)},
    )
    assert judge(silent, capture(silent, IDS))["blocks.0.mlp.out"].status == "holds"


@pytest.mark.parametrize("site", ["blocks.0.attn.z", "blocks.0.resid_pre", "blocks.0.attn.rot_q", "embed"])
@pytest.mark.parametrize("shape", [(6,), (1, 1, 1), (3, 2), (0,)])
def test_a_wrong_shape_is_a_verdict_and_spoils_nothing_else(site, shape):
    built = equations(SPECS["sequential"])
    verdicts = judge(built, capture(built, IDS) | {site: np.ones(shape)})
    assert violated(verdicts) == [site]
    assert f"has shape {list(shape)} instead of" in verdicts[site].reason


def experts(**fields):
    built = equations(model(sequential(mlp=Moe(4, 2, GatedMlp(7, "silu"), **fields))))
    return built, capture(built, IDS)


INDEX = "blocks.0.mlp.expert_index"


def swapped(signals, token):
    """The two chosen experts of one token in the other order."""
    index = signals[INDEX].copy()
    index[token] = index[token][::-1]
    return index


def test_other_experts_are_a_fault_with_a_margin():
    built, signals = experts()
    found = judge(built, signals | {INDEX: swapped(signals, 2)})[INDEX]
    assert found.status == "violated"
    assert "other experts at token 2, margin" in found.reason


@pytest.mark.parametrize("fields", [{}, {"scoring": "sigmoid", "correction": True}, {"scoring": "topk_softmax"}])
def test_a_tie_within_rounding_holds_and_is_said(fields):
    built, _ = experts(**fields)
    at = "blocks.0.mlp."
    weights = dict(built.weights)
    weights[at + "W_router"] = np.repeat(weights[at + "W_router"][:, :1], 4, 1) * (1 + 1e-9 * np.arange(4))
    if at + "b_correction" in weights:
        weights[at + "b_correction"] = np.full(4, 0.3)
    tied = evolve(built, weights=weights)
    signals = capture(tied, IDS)
    found = judge(tied, signals | {INDEX: swapped(signals, 2)}, Precision("float32", "float32"))[INDEX]
    assert found.status == "holds"
    assert "a tie within rounding at token 2" in found.reason


def test_a_corrected_choice_is_judged_by_what_it_goes_by():
    built, signals = experts(scoring="sigmoid", correction=True)
    router = signals["blocks.0.mlp.router"].copy()
    router[:, 1] = router[:, 0]  # the same score, told apart by the correction alone
    weights = dict(built.weights) | {"blocks.0.mlp.b_correction": np.array([2.0, 1.0, -9.0, -9.0])}
    corrected = evolve(built, weights=weights)
    signals = capture(corrected, IDS, {"blocks.0.mlp.router": router})
    assert (signals[INDEX] == [0, 1]).all()
    found = judge(corrected, signals | {INDEX: swapped(signals, 2)})[INDEX]
    assert found.status == "violated"


@pytest.mark.parametrize("value", [-1, 4, 10**9])
def test_an_expert_that_does_not_exist_is_a_verdict(value):
    built, signals = experts()
    index = signals[INDEX].copy()
    index[0, 0] = value
    verdicts = judge(built, signals | {INDEX: index})
    assert verdicts[INDEX].status == "violated"
    assert "experts outside 0 … 3" in verdicts[INDEX].reason


def test_experts_that_are_no_integers_are_a_verdict():
    built, signals = experts()
    assert "instead of integers" in judge(built, signals | {INDEX: signals[INDEX].astype(float)})[INDEX].reason


def test_without_the_router_experts_are_derived_or_unchecked():
    built, signals = experts()
    without = {site: array for site, array in signals.items() if site != "blocks.0.mlp.router"}
    assert judge(built, without)[INDEX].status == "holds"
    assert judge(built, without | {INDEX: swapped(signals, 1)})[INDEX].status == "violated"
    bare = {INDEX: signals[INDEX]}
    assert judge(built, bare)[INDEX].status == "unchecked"


def test_sites_can_be_asked_for():
    built = equations(SPECS["sequential"])
    asked = verify(built, inputs(IDS) | capture(built, IDS), {}, ["logits", "embed"])
    assert [found.site for found in asked] == ["embed", "logits"]


@given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6), st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
def test_the_distance_is_that_of_the_definition(found, expected):
    f, e = np.array(found).reshape(3, 2), np.array(expected).reshape(3, 2)
    whole, worst = distance(f, e)
    size, error = np.sqrt((e**2).sum()), np.sqrt(((f - e) ** 2).sum())
    assert whole == pytest.approx(error / size if size else (math.inf if error else 0), rel=1e-9)
    rows = [ratio(float(((f - e)[t] ** 2).sum()), float((e[t] ** 2).sum())) for t in range(3)]
    assert worst == pytest.approx(max(rows), rel=1e-9)


SINGLES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6)


@given(SINGLES, SINGLES)
def test_single_precision_numbers_of_any_size_are_as_far_apart_as_in_double(found, expected):
    f, e = (np.array(x, np.float32).reshape(3, 2) for x in (found, expected))
    exact = distance(f.astype(np.float64), e.astype(np.float64))
    assert distance(f, e) == pytest.approx(exact, rel=1e-5)


def test_zero_against_zero_is_nothing_and_anything_against_zero_is_infinite():
    assert distance(np.zeros((2, 2)), np.zeros((2, 2))) == (0.0, 0.0)
    assert distance(np.ones((2, 2)), np.zeros((2, 2))) == (math.inf, math.inf)
    assert distance(np.full((2, 2), np.nan), np.ones((2, 2))) == (math.inf, math.inf)
    assert distance(np.ones((2, 2)), np.ones((2, 3))) == (math.inf, math.inf)


@pytest.mark.parametrize("name", [name for name in ROUNDOFF if name not in ROUNDED])  # those have tests of their own
def test_a_round_off_is_half_the_step_after_one(name):
    if name == "tf32":
        assert ROUNDOFF[name] == 2.0**-11  # ten explicit bits, as float16
        return
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(name) or np.dtype(name).type
    eps = float(ml_dtypes.finfo(kind).eps)
    assert ROUNDOFF[name] == eps / 2


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_those_of_numpy(name):
    assert BYTES[name] == np.dtype(name).itemsize


def test_integers_are_exact_and_a_type_that_does_not_exist_is_refused():
    assert Precision("int64", "float32").storage_roundoff == 0.0
    for fields in ({"storage": "float8"}, {"accumulation": "int64"}, {"operands": "int32"}, {"functions": "guess"}):
        with pytest.raises(ValueError, match="must be in"):
            Precision(**fields)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_lies_between_was_rounded_as_the_judged_signal_was(dtype):
    built = equations(SPECS["sequential"])
    signals = rounded(built, getattr(ml_dtypes, dtype, None) or dtype)
    scores = signals.pop("blocks.0.attn.scores").astype(np.float64)
    kinds = dict.fromkeys(signals, Precision(dtype, "float32"))  # nobody declares what was not captured
    found = next(e for e in verify(built, signals, kinds) if e.site == "blocks.0.attn.pattern")
    felt = (scores[np.isfinite(scores)] ** 2).mean()  # an absolute error of the scores is a relative one of the pattern
    assert found.status == "holds"
    assert found.tolerance == pytest.approx(4 * ROUNDOFF[dtype] * math.sqrt(1 + felt), rel=0.01)


def half_cache(built):
    """A runtime in float32 that rounds what its attention multiplies to float16: q, k and v, and the pattern."""
    wide = evolve(built, dtype=np.float32)
    signals = dict(inputs(IDS))

    def look(name):
        array = wide.cast(signals[name])
        rounds = name.rpartition(".")[2] in ("rot_q", "rot_k", "v", "pattern") and here.rpartition(".")[2] in (
            "scores",
            "z",
        )
        return array.astype(np.float16).astype(np.float32) if rounds else array

    for here in wide.steps:
        signals[here] = np.asarray(wide.evaluate(here, look))
    return signals


def test_operands_that_a_runtime_rounds_are_a_fault_until_they_are_declared():
    built = equations(SPECS["sequential"])
    signals = half_cache(built)
    plain = {site: Precision() for site in built.steps}
    said = plain | {s: Precision(operands="float16") for s in built.steps if s.endswith(("attn.scores", "attn.z"))}
    found = {e.site for e in verify(built, inputs(IDS) | signals, plain) if e.status == "violated"}
    assert {site.split(".", 2)[2] for site in found} == {"attn.scores", "attn.z"}
    assert {e.status for e in verify(built, inputs(IDS) | signals, said)} == {"holds"}


def test_operands_loosen_products_only():
    built = equations(SPECS["sequential"])
    signals = rounded(built, np.float32)
    limit = {
        kind: {e.site: e.tolerance for e in verify(built, inputs(IDS) | signals, dict.fromkeys(built.steps, kind))}
        for kind in (Precision(), Precision(operands="float16"), Precision(functions="ggml_f16_table"))
    }
    plain, operands, table = limit.values()
    looser = {site.rpartition(".")[2] for site in plain if operands[site] > 2 * plain[site]}
    assert looser >= {"scores", "z", "q", "logits"} and not looser & {"rot_q", "pattern", "resid_post", "post"}
    assert {site.rpartition(".")[2] for site in plain if table[site] > 2 * plain[site]} == {"post"}


def test_eight_bit_blocks_cost_what_their_round_off_says():
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(4000, 32))
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    error = ((np.rint(blocks / step) * step - blocks) ** 2).mean() / (blocks**2).mean()
    assert 0.05 < error / (16 * ROUNDOFF["q8_0"] ** 2) < 0.5


def test_nan_is_a_verdict_where_nothing_leads_to_it_and_blames_nobody_downstream():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    last = f"blocks.{len(built.spec.blocks) - 1}"
    few = {site: signals[site] for site in (f"{last}.resid_post", "ln_final.out", "logits")}
    few[f"{last}.resid_post"] = few[f"{last}.resid_post"] * np.nan
    verdicts = judge(built, few)
    assert violated(verdicts) == [f"{last}.resid_post"]
    assert "NaN" in verdicts[f"{last}.resid_post"].reason
    assert verdicts["logits"].status == "holds"


def test_an_all_zero_signal_that_nothing_leads_to_says_so():
    built = equations(SPECS["sequential"])
    zero = np.zeros_like(capture(built, IDS)["blocks.1.resid_pre"])
    found = judge(built, {"blocks.1.resid_pre": zero})["blocks.1.resid_pre"]
    assert found.status == "unchecked" and found.reason.startswith("is all zero")


def test_what_was_put_there_is_not_judged_and_what_follows_from_it_is():
    built = equations(SPECS["sequential"])
    z = "blocks.0.attn.z"
    held = np.ones(built.steps[z].shape(len(IDS)))
    signals = capture(built, IDS, {z: held})
    kinds = dict.fromkeys(built.steps, FLOAT64)
    there = evolve(built, given=frozenset({z}))
    verdicts = {e.site: e for e in verify(there, inputs(IDS) | signals, kinds)}
    assert (verdicts[z].status, verdicts["blocks.0.attn.z_post"].status) == ("unchecked", "holds")
    assert [site for site, e in verdicts.items() if e.status == "violated"] == []
    del signals[z]
    hidden = {e.site: e for e in verify(there, inputs(IDS) | signals, kinds)}["blocks.0.attn.z_post"]
    assert hidden.status == "unchecked" and f"missing {z} (replayed or edited" in hidden.reason


def test_the_worst_token_is_named():
    built = equations(SPECS["sequential"])
    signals = capture(built, IDS)
    wrong = signals["blocks.0.attn.z"].copy()
    wrong[3] *= 1.01
    verdicts = judge(built, signals | {"blocks.0.attn.z": wrong})
    assert verdicts["blocks.0.attn.z"].worst_token == 3


def test_the_error_of_every_token_is_told():
    built = equations(SPECS["sequential"])
    clean = capture(built, IDS)
    faulty = clean["logits"].copy()
    faulty[1] *= 1.5
    faulty[3, 0] += 2.0
    found = judge(built, clean | {"logits": faulty})["logits"]
    expected = np.zeros(len(IDS))
    expected[1], expected[3] = 0.5, 2.0 / math.sqrt(float((clean["logits"][3] ** 2).sum()))
    assert found.token_errors == pytest.approx(expected, abs=1e-6)
    assert found.worst_token == int(expected.argmax())
    assert judge(built, clean | {"logits": faulty[:2]})["logits"].token_errors is None


def test_tokens_that_go_to_other_experts_are_told():
    built, signals = experts()
    found = judge(built, signals | {INDEX: swapped(signals, 2)})[INDEX]
    assert list(found.token_errors) == [1.0 if token == 2 else 0.0 for token in range(len(IDS))]
    assert list(judge(built, signals)[INDEX].token_errors) == [0.0] * len(IDS)
