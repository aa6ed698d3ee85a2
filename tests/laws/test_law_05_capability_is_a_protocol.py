"""Law 5. Capability is a protocol, not a flag soup; an error names the backend, the site, the kind of gap, and what to do instead."""

import typing

import numpy as np
import pytest

from llmtrace import protocol
from llmtrace.errors import CapabilityError, SignalUnavailableError
from llmtrace.model import Model
from llmtrace.plugins import plugins
from llmtrace.protocol import GapKind, SupportsMany, SupportsReplay, SupportsWeights
from tests.specs import SPECS, FakeSession, WeighedSession, equations

CAPABILITIES = [kind for name, kind in vars(protocol).items() if name.startswith("Supports")]


@pytest.mark.parametrize("kind", CAPABILITIES, ids=lambda kind: kind.__name__)
def test_a_capability_can_be_asked_of_any_session(kind):
    assert typing.is_protocol(kind) if hasattr(typing, "is_protocol") else kind._is_protocol
    assert not isinstance(FakeSession(equations(SPECS["sequential"])), kind)


def test_a_session_that_has_weights_supports_them_without_saying_so():
    assert isinstance(WeighedSession(equations(SPECS["sequential"])), SupportsWeights)
    assert not isinstance(WeighedSession(equations(SPECS["sequential"])), SupportsReplay | SupportsMany)


@pytest.mark.parametrize("kind", [protocol.TraceSession, protocol.TraceBackend])
def test_no_flag_says_what_a_session_can_do(kind):
    assert [name for name, hint in typing.get_type_hints(kind).items() if hint is bool] == []


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda model: model.weights,
            "backend fake does not read weights: open the model with a backend that has them",
        ),
        (
            lambda model: model.trace([1], replay={"embed": np.zeros((1, 12))}),
            "backend fake cannot take .*; the reference backend can",
        ),
    ],
)
def test_a_capability_that_lacks_is_an_error_with_backend_and_way_out(ask, words):
    with pytest.raises(CapabilityError, match=words):
        ask(Model(FakeSession(equations(SPECS["sequential"]))))


@pytest.mark.parametrize("kind", typing.get_args(GapKind))
def test_a_gap_names_backend_site_kind_reason_and_what_lacks(kind):
    session = FakeSession(equations(SPECS["sequential"]), ["logits"])
    session.gaps = {"blocks.0.attn.v": protocol.Gap(kind, "the kernel keeps it")}
    with pytest.raises(SignalUnavailableError) as caught:
        Model(session).trace([1, 2], capture="blocks.0.attn.v")
    for word in ("fake", "blocks.0.attn.v", f"({kind})", "the kernel keeps it", "missing"):
        assert word in str(caught.value)
    assert caught.value.gap == kind


def test_a_gap_that_the_backend_does_not_explain_still_says_whose_it_is():
    session = FakeSession(equations(SPECS["sequential"]), ["logits"])
    with pytest.raises(
        SignalUnavailableError, match=r"blocks\.0\.attn\.v .*missing.*backend fake does not hand it out \(ours\)"
    ):
        Model(session).trace([1, 2], capture="blocks.0.attn.v")


@pytest.mark.parametrize("name", sorted(name for name, entry in plugins().backends.items() if entry.status == "ok"))
def test_a_real_backends_gaps_are_of_one_of_the_three_kinds(name, small_model):
    with small_model(name) as model:
        for site, gap in model.session.gaps.items():
            assert gap.kind in typing.get_args(GapKind)
            assert gap.reason
            assert site not in model.session.offers
            assert site in model.equations.steps
