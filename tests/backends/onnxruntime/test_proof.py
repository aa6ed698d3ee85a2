"""A reading is held to the equations: whatever signal does not follow from the others, nothing that was read of it is claimed any more."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

from attrs import evolve

from llmtrace.dataflow.proof import proven
from llmtrace.dataflow.reading.model import ReadModel
from llmtrace.dataflow.weights import SourcedWeights
from llmtrace.errors import UnsupportedModelError
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.steps import steps
from llmtrace.schema.verify import verify
from llmtrace.spec import Mixer
from tests.backends.onnxruntime.opening import open_graph, write
from tests.backends.onnxruntime.test_session import run
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS, drawn

ENDS = ("embed", "resid_pre", "resid_mid", "resid_post", "ln_final.out", "logits")
"""Sites of the stream: what is wrong there is wrong with no branch."""


class Case:
    """What was read of a graph, and its signals."""

    def __init__(self, model):
        session = model.session
        self.read = ReadModel(model.spec, dict(session._places), dict(session.weights._sources))
        self.signals = {**run(model).arrays, "tokens": np.array(TOKENS), "positions": np.arange(len(TOKENS))}
        self.precision = {site: offer.precision for site, offer in session.offers.items()}

    def proven(self, **changed):
        return proven(self.read, self.signals | changed, self.precision)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two blocks with norms before and after, and norms of q and k."""
    spec = FEATURES["sandwiched"]
    branches = spec.blocks[0].branches
    attention = evolve(branches[0], module=evolve(FEATURES["norms of q and k"].blocks[0].branches[0].module, gate=None))
    block = evolve(spec.blocks[0], branches=(attention, branches[1]))
    spec = evolve(spec, blocks=(block, block))
    with open_graph(write(drawn(spec), tmp_path_factory.mktemp("proof"))) as model:
        yield Case(model)


def sites(case):
    return [site for site in case.read.places if not site.startswith("blocks.1.")]


def test_what_holds_stays_as_it_was_read(case):
    assert case.proven() is case.read


def outcome(case, site, wrong):
    """What is left of a reading, or why it is refused."""
    try:
        return case.proven(**{site: wrong}), ""
    except UnsupportedModelError as refusal:
        return None, str(refusal)


def test_whatever_signal_is_wrong_nothing_that_is_violated_is_claimed(case):
    """One signal after the other is off by a thousandth."""
    assert len(sites(case)) > 20
    for site in sites(case):
        wrong = case.signals[site] * np.float32(1.001)
        left, refusal = outcome(case, site, wrong)
        if left is None:
            assert re.search(rf"in which ({'|'.join(ENDS)}|blocks\.\d\.resid_\w+) does not follow", refusal), site
            continue
        assert site.rpartition(".")[2] not in ENDS
        assert [name for name in ("attn", "mlp") if f"blocks.0.{name}" in left.why]
        given = case.signals | {site: wrong}
        known = {name: given[name] for name in (*left.places, "tokens", "positions")}
        errors = verify(Equations(left.spec, SourcedWeights(left.weights)), known, case.precision)
        assert not [each.site for each in errors if each.status == "violated"], site


@pytest.mark.parametrize(
    ("site", "branch"),
    [
        ("attn.z_post", "attn"), ("attn.rot_k", "attn"), ("attn.q_norm.out", "attn"), ("attn_post.out", "attn"), ("ln1.out", "attn"),
        ("mlp.pre", "mlp"), ("mlp.post", "mlp"), ("mlp_post.out", "mlp"), ("ln2.out", "mlp"),
    ],
)  # fmt: skip
def test_a_branch_with_a_wrong_signal_becomes_opaque(site, branch, case):
    at = f"blocks.0.{site}"
    left = case.proven(**{at: case.signals[at] + np.float32(0.5)})
    opaque = {each.name: isinstance(each.module, Mixer) for each in left.spec.blocks[0].branches}
    assert opaque == {name: name == branch for name in ("attn", "mlp")}
    assert left.spec.blocks[1] == case.read.spec.blocks[1]
    norm = {"attn": "ln1", "mlp": "ln2"}[branch]
    normed = site.startswith("ln")
    for held, one in ((left.places, f"blocks.0.{norm}.out"), (left.weights, f"blocks.0.{norm}.w")):
        assert not [name for name in held if name.startswith((f"blocks.0.{branch}.", f"blocks.0.{branch}_post."))]
        assert (one in held) != normed
    assert left.spec.blocks[0].branch(branch).reads == (
        case.read.spec.blocks[0].norms[norm == "ln2"].reads if normed else f"{norm}.out"
    )
    assert left.places[f"blocks.0.{branch}_out"] == case.read.places[f"blocks.0.{branch}_out"]
    assert left.why[f"blocks.0.{branch}"].startswith("blocks.0.")
    assert "off by" in left.why[f"blocks.0.{branch}"]
    assert set(left.places) <= set(steps(left.spec))


@pytest.mark.parametrize("site", ["embed", "blocks.0.resid_mid", "blocks.1.resid_post", "ln_final.out", "logits"])
def test_a_stream_that_does_not_add_up_is_refused(site, case):
    with pytest.raises(
        UnsupportedModelError, match=r"does not follow from what it is made of: .* is off by .*, and rounding explains"
    ):
        case.proven(**{site: case.signals[site] + np.float32(0.5)})


def test_of_two_wrong_branches_of_one_block_what_they_add_is_left(case):
    wrong = {
        f"blocks.0.{site}": case.signals[f"blocks.0.{site}"] + np.float32(0.5) for site in ("attn.z_post", "mlp.post")
    }
    left = case.proven(**wrong)
    assert all(isinstance(each.module, Mixer) for each in left.spec.blocks[0].branches)
    assert {"blocks.0.attn_out", "blocks.0.mlp_out"} <= set(left.places)


def test_a_signal_that_is_not_a_number_is_told_so(case):
    broken = case.signals["blocks.0.mlp.post"].copy()
    broken[3, 2] = np.nan
    left = case.proven(**{"blocks.0.mlp.post": broken})
    assert left.why["blocks.0.mlp"] == "blocks.0.mlp.post holds NaN or infinite values"
