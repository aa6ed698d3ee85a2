"""The logit lens against transformers' own final norm and head on its own hidden states."""

from __future__ import annotations

import numpy as np
import pytest

from llmtrace.errors import OptionError, SchemaViolationError
from llmtrace.influence import lens
from llmtrace.model import Model
from tests.specs import FakeSession


def probabilities(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def test_every_reading_is_what_transformers_norm_and_head_make_of_the_stream(family, tiny, tokens):
    model, watched = tiny(family)
    found = lens(model, tokens, position=7, target=44, top=3)
    streams = {"blocks.0.resid_pre": watched.embed} | {
        f"blocks.{layer}.resid_post": b.post for layer, b in enumerate(watched.blocks)
    }
    by_site = {reading.site: reading for reading in found.layers}
    assert set(streams) <= set(by_site)
    for site, stream in streams.items():
        p = probabilities(watched.read(stream)[7])
        order = np.argsort(-p, kind="stable")
        assert [token.id for token, _ in by_site[site].top] == order[:3].tolist()
        assert [share for _, share in by_site[site].top] == pytest.approx(p[order[:3]].tolist(), rel=1e-5)
        assert by_site[site].target_probability == pytest.approx(p[44], rel=1e-5)
        assert by_site[site].target_rank == 1 + order.tolist().index(44)


def test_the_last_reading_is_the_models_prediction(family, tiny, tokens):
    model, watched = tiny(family)
    found = lens(model, tokens)
    assert found.gap < 1e-12
    assert found.layers[-1].target_rank == 1
    assert found.target.id == found.layers[-1].top[0][0].id == watched.logits[-1].argmax()


def test_points_between_attention_and_mlp_are_read_where_the_model_has_them(tiny, tokens):
    assert [reading.site for reading in lens(tiny("llama")[0], tokens).layers[:3]] == [
        "blocks.0.resid_pre", "blocks.0.resid_mid", "blocks.0.resid_post",
    ]  # fmt: skip
    assert all("resid_mid" not in reading.site for reading in lens(tiny("gpt_neox")[0], tokens).layers)


def test_on_the_hand_built_model_the_answer_appears_with_the_induction_head(hand):
    ranks = {
        reading.site: (reading.top[0][0].text, reading.target_probability)
        for reading in lens(hand, "a b c d e a b c").layers
    }
    assert ranks["blocks.0.resid_post"][1] == pytest.approx(1 / 16, rel=1e-3)
    assert ranks["blocks.1.resid_mid"] == ("d", pytest.approx(1, abs=1e-4))


@pytest.mark.parametrize("top", [0, 17])
def test_no_more_tokens_than_there_are(hand, top):
    with pytest.raises(OptionError, match="between 1 and 16"):
        lens(hand, "a b", top=top)


def test_equal_logits_are_ordered_by_id(hand):
    found = lens(hand, "a b", target=5, top=16)
    first = found.layers[0]
    assert [token.id for token, _ in first.top] == list(range(16))
    assert (first.target_rank, first.target_ranks) == (6, (1, 16))
    assert "target rank 1-16" in repr(found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_a_point_that_is_not_finite_is_an_error_though_the_logits_are(hand, value):
    class Broken(FakeSession):
        def __init__(self):
            self.__dict__ |= vars(hand.session)

        def run(self, request, observer):
            class Swap:
                layer_done = observer.layer_done

                def signal(self, site, array):
                    observer.signal(site, np.full_like(array, value) if site == "blocks.0.resid_mid" else array)

            hand.session.run(request, Swap())

    with pytest.raises(SchemaViolationError, match=r"What blocks\.0\.resid_mid of .* would predict holds NaN"):
        lens(Model(Broken()), "a b c")
