"""A whole model or a saved trace is held against its equations, and what could not be judged is said."""

import attrs
import pytest

import llmtrace
from llmtrace.availability import availability
from llmtrace.cli.verdicts import show
from llmtrace.errors import ModelOpenError, SignalUnavailableError
from llmtrace.model import Model
from llmtrace.origin import open_origin
from llmtrace.protocol import Gap
from llmtrace.testing import handmade
from llmtrace.verifying import default_prompt, verify_model, verify_trace
from tests.specs import SPECS, FakeSession, WeighedSession, equations

BUILT = equations(SPECS["sequential"])
PROMPT = [1, 2, 3, 4]


def test_every_site_has_a_verdict_in_dataflow_order():
    verdicts = verify_model(Model(WeighedSession(BUILT)), PROMPT)
    assert [each.site for each in verdicts.sites] == list(BUILT.steps)
    assert (verdicts.verdict, verdicts.violated, verdicts.left_out) == ("holds", [], ())
    document = verdicts.to_json()
    assert document["first_violated"] is None
    assert [token["id"] for token in document["tokens"]] == PROMPT


def test_the_first_violated_site_is_where_the_fault_entered():
    class Faulty(WeighedSession):
        def hand_over(self, site, array, observer):
            observer.signal(site, array * 1.01 if site == "blocks.1.mlp.out" else array)

    verdicts = verify_model(Model(Faulty(BUILT)), PROMPT)
    assert verdicts.to_json()["first_violated"] == "blocks.1.mlp.out"
    assert verdicts.verdict == "violated"


def test_without_weights_what_needs_them_is_left_out_and_said():
    verdicts = verify_model(Model(FakeSession(BUILT)), PROMPT)
    assert "blocks.0.attn.q" in verdicts.left_out
    assert "blocks.0.attn.pattern" not in verdicts.left_out
    assert set(verdicts.left_out) == {
        each.site for each in verdicts.sites if each.status == "unchecked" and "weight" in each.reason
    }
    assert verdicts.notes[-1].startswith(f"{len(verdicts.left_out)} captured signals could not be judged")


def test_a_captured_signal_that_lacks_a_weight_is_not_called_uncaptured():
    verdicts = verify_model(Model(FakeSession(BUILT)), PROMPT)
    reason = {each.site: each.reason for each in verdicts.sites}["blocks.0.attn.v"]
    assert reason == "blocks.0.attn.v cannot be checked: missing the weight blocks.0.attn.W_V and 1 more."


def test_a_site_that_is_derived_or_unavailable_is_not_left_out():
    session = WeighedSession(BUILT, [site for site in BUILT.steps if not site.startswith("blocks.0.attn.")])
    session.gaps = {"blocks.0.attn.q": Gap("upstream", "it is kept in a register")}
    verdicts = verify_model(Model(session), PROMPT)
    found = {each.site: each for each in verdicts.sites}
    assert found["blocks.0.attn.pattern"].status == "unchecked"
    assert "by construction" in found["blocks.0.attn.pattern"].reason
    assert verdicts.left_out == ()
    assert availability(Model(session))["blocks.0.attn.pattern"].kind == "derived"


def test_nothing_to_judge_is_an_error():
    with pytest.raises(SignalUnavailableError, match="Nothing could be checked in fake"):
        verify_model(Model(FakeSession(BUILT, ["logits"])), PROMPT)


def test_a_model_without_a_tokenizer_gets_ids_within_its_context():
    spec = attrs.evolve(SPECS["sequential"], context=5)
    tokens = default_prompt(Model(FakeSession(equations(spec))))
    assert len(tokens) == 5
    assert all(0 <= token.id < spec.vocab for token in tokens)


@pytest.fixture
def saved(tmp_path):
    source = handmade.write(tmp_path / "model")
    with llmtrace.open(source, backend="reference") as model:
        model.trace("c a f e c a").save(tmp_path / "x.trace")
    return llmtrace.load(tmp_path / "x.trace")


def test_a_saved_trace_is_judged_with_the_weights_of_its_own_model(saved):
    with open_origin(saved) as origin:
        verdicts = verify_trace(origin.trace)
    assert (origin.missing, origin.notes) == ("", ())
    assert verdicts.verdict == "holds"
    assert {each.site for each in verdicts.judged} == set(saved)


def test_a_saved_trace_whose_model_is_gone_is_judged_without_and_says_so(saved, tmp_path):
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with open_origin(saved) as origin:
        assert "is not on this machine" in origin.missing
        assert not origin.trace.weights
        verdicts = verify_trace(origin.trace, (origin.missing,))
    assert verdicts.notes[-1] == origin.missing
    assert "blocks.0.attn.q" in verdicts.left_out
    with open_origin(saved, str(tmp_path / "elsewhere"), backend="reference") as origin:
        assert verify_trace(origin.trace).left_out == ()


def test_another_model_is_refused_by_the_weight_that_differs(saved):
    other = attrs.evolve(saved, spec=attrs.evolve(saved.spec, vocab=15))
    with pytest.raises(ModelOpenError, match=r"is another model.*embed\.W_E has shape \[16, 64\]"), open_origin(other):
        pass


def test_one_signal_that_was_edited_is_one_and_named(capsys):
    with llmtrace.open("builtin:induction") as model:
        trace = model.trace("a b c", edits=[llmtrace.ablate("blocks.1.attn.z_post", heads=[1])])
    verdicts = verify_trace(trace)
    assert verdicts.notes[-1] == (
        "1 captured signal could not be judged, because blocks.1.attn.z_post was taken as given or edited, not computed"
    )
    show(verdicts, every=False)
    out = capsys.readouterr().out
    assert "1 captured signal could not be judged: blocks.1.attn.z_post" in out.splitlines()[0]
    assert "\nunchecked: blocks.1.attn.z_post: was taken as given or edited, not computed\n" in out


def test_a_trace_that_nothing_can_be_checked_of_is_named_and_told_what_to_record():
    with llmtrace.open("builtin:induction") as model:
        trace = model.trace("a b c", capture="blocks.*.attn.{q,k}")
    with pytest.raises(
        SignalUnavailableError,
        match=r"^Nothing could be checked in qk\.trace \(a trace of builtin:induction\): .* Record also "
        r"blocks\.\*\.ln1\.out \(--capture\), or all sites\.$",
    ):
        verify_trace(trace, name="qk.trace")
