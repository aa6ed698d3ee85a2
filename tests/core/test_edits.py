"""Edits of signals in flight: on the reference backend, and on the hand-built model, whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmtrace
from llmtrace import edits
from llmtrace.errors import (
    EditNotSupportedError,
    OptionError,
    PromptError,
    SignalUnavailableError,
    TraceFileError,
    UnknownSignalError,
)
from llmtrace.model import Model
from llmtrace.plugins import plugins
from llmtrace.schema.steps import steps
from tests.specs import SPECS, FakeSession, equations, specs

IDS = [3, 1, 4, 1, 5]
INDUCTION = [0, *("_abcdefghijklmno".index(letter) for letter in "afebodcafebodc")]


def loss(model, *changes) -> float:
    """Mean nats a token of the second copy, but for its first, which has no cue."""
    trace = model.trace(INDUCTION, capture="logits", edits=changes)
    logits = trace["logits"].array.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    nats = np.log(np.exp(shifted).sum(-1))[:-1] - shifted[np.arange(len(logits) - 1), trace.ids[1:]]
    return float(nats[8:].mean())


@pytest.mark.parametrize(
    "backend",
    sorted(n for n, e in plugins().backends.items() if e.status == "ok" and "edits" in e.backend.capabilities),
)
class TestTheHandBuiltCircuit:
    @pytest.fixture
    def model(self, backend):
        with llmtrace.open("builtin:induction", backend=backend) as model:
            yield model

    def test_it_predicts_the_second_copy(self, model):
        assert loss(model) < 1e-2

    @pytest.mark.parametrize("head", ["blocks.0.attn.z_post", "blocks.1.attn.z_post"])
    def test_without_either_head_of_the_circuit_it_guesses_among_sixteen(self, model, head):
        assert loss(model, llmtrace.ablate(head, heads=[0])) == pytest.approx(math.log(16), abs=1e-3)

    @pytest.mark.parametrize("head", ["blocks.0.attn.z_post", "blocks.1.attn.z_post"])
    def test_the_other_heads_are_not_needed(self, model, head):
        assert loss(model, llmtrace.ablate(head, heads=[1])) == pytest.approx(loss(model), abs=1e-3)

    def test_putting_back_what_was_there_changes_nothing(self, model):
        clean = model.trace(INDUCTION, capture=["blocks.0.resid_post", "logits"])
        patch = edits.replace("blocks.0.resid_post", clean["blocks.0.resid_post"].array)
        assert loss(model, patch) == pytest.approx(loss(model), abs=1e-6)

    def test_a_prompt_among_many_is_edited_as_it_is_alone(self, model):
        cut = [llmtrace.ablate("blocks.1.attn.z_post", heads=[0], tokens=[-1])]
        prompts = [[0, 1, 2], INDUCTION, [0, 1, 2, 3, 1]]
        together = model.trace_many(prompts, capture="logits", edits=cut)
        for prompt, trace in zip(prompts, together, strict=True):
            alone = model.trace(prompt, capture="logits", edits=cut)["logits"].array
            np.testing.assert_allclose(trace["logits"].array, alone, rtol=1e-5, atol=1e-5)


@pytest.fixture
def reference():
    with llmtrace.open("builtin:induction", backend="reference") as model:
        yield model


@given(specs(), st.data())
@settings(max_examples=60, deadline=None)
def test_an_edit_changes_what_is_downstream_as_its_equations_say(spec, data):
    """By hand: evaluate to the site, change it, and evaluate on with the changed value taken as given."""
    built = equations(spec)
    table = steps(spec)
    site = data.draw(
        st.sampled_from([s for s, step in table.items() if not step.equation.integer and not step.equation.opaque])
    )
    opaque = {s: np.ones(step.shape(len(IDS))) for s, step in table.items() if step.equation.opaque}
    inputs = {"tokens": np.asarray(IDS), "positions": np.arange(len(IDS)), **opaque}
    change = edits.changes([edits.scale(site, 1.5, tokens=[1])], table, len(IDS))
    clean = dict(built.run(inputs, [site]))[site]
    expected_value = clean.copy()
    axis = next(place for place, name in enumerate(table[site].axes) if name in ("token", "query"))
    at = (slice(None),) * axis + (1,)
    expected_value[at] = expected_value[at] * 1.5
    expected = dict(built.run({**inputs, site: expected_value}, list(table)))

    def changed(name, array):
        if name in change:
            array = array.copy()
            for each in change[name]:
                each.apply(array)
        return array

    found = dict(built.run(inputs, list(table), changed))
    for name in table:
        if name != site or site not in opaque:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


class TestOneEdit:
    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: llmtrace.ablate("blocks.0.attn.z", heads=[1]), lambda z: 0 * z),
            (lambda: edits.replace("blocks.0.attn.z", 7, heads=[1]), lambda z: 0 * z + 7),
            (lambda: edits.add("blocks.0.attn.z", 2, heads=[1]), lambda z: z + 2),
            (lambda: edits.scale("blocks.0.attn.z", -3, heads=[1]), lambda z: -3 * z),
        ],
    )
    def test_does_what_its_name_says_to_the_cut_and_nothing_to_the_rest(self, reference, make, expected):
        before = reference.trace("a b a")["blocks.0.attn.z"].array
        after = reference.trace("a b a", edits=[make()])["blocks.0.attn.z"].array
        np.testing.assert_allclose(after[:, 1], expected(before[:, 1]), rtol=1e-12)
        np.testing.assert_array_equal(after[:, 0], before[:, 0])

    def test_counts_positions_from_the_end(self, reference):
        trace = reference.trace("a b a", edits=[llmtrace.ablate("blocks.0.attn.out", tokens=[-1])])
        assert not trace["blocks.0.attn.out"].array[-1].any() and trace["blocks.0.attn.out"].array[:-1].any()

    def test_steers_along_a_direction(self, reference):
        direction = np.arange(64.0)
        before = reference.trace("a b")["blocks.0.resid_post"].array
        after = reference.trace("a b", edits=[edits.add("blocks.0.resid_post", direction)])["blocks.0.resid_post"].array
        np.testing.assert_allclose(after, before + direction)

    def test_between_attention_and_mlp_flows_on_in_the_stream(self, reference):
        clean = reference.trace("a b a")
        trace = reference.trace("a b a", edits=[edits.add("blocks.0.resid_mid", 100.0)])
        moved = trace["blocks.0.resid_post"].array - trace["blocks.0.mlp_out"].array
        before = clean["blocks.0.resid_post"].array - clean["blocks.0.mlp_out"].array
        np.testing.assert_allclose(moved, before + 100.0)

    def test_may_name_sites_of_many_layers(self, reference):
        trace = reference.trace("a b", edits=[llmtrace.ablate("blocks.*.mlp.out")])
        assert not trace["blocks.0.mlp.out"].array.any() and not trace["blocks.1.mlp.out"].array.any()

    def test_takes_transformer_lens_names(self, reference):
        trace = reference.trace("a b", edits=[llmtrace.ablate("blocks.0.hook_mlp_out")])
        assert not trace["blocks.0.mlp_out"].array.any()

    def test_cannot_be_changed_afterwards(self):
        values = np.ones(3)
        edit = edits.add("blocks.0.resid_post", values)
        values[:] = 9
        assert edit.value.tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match="read-only"):
            edit.value[0] = 2


class TestATraceSaysWhatWasEdited:
    def test_in_its_edits_and_in_the_signals_provenance(self, reference):
        trace = reference.trace("a b", edits=[llmtrace.ablate("blocks.0.attn.z_post", heads=[1])])
        assert [str(edit) for edit in trace.edits] == ["zero(blocks.0.attn.z_post, heads=1)"]
        assert str(trace["blocks.0.attn.z_post"].provenance) == "converted(edited: zero(blocks.0.attn.z_post, heads=1))"
        assert trace["blocks.0.attn.out"].provenance.kind == "captured"

    def test_and_no_equation_is_held_against_an_edited_signal(self, reference):
        trace = reference.trace("a b", edits=[llmtrace.ablate("blocks.0.attn.z_post", heads=[1])])
        verdicts = {error.site: error for error in trace.verify()}
        assert verdicts["blocks.0.attn.z_post"].status == "unchecked"
        assert "edited" in verdicts["blocks.0.attn.z_post"].reason
        assert {error.status for error in verdicts.values()} == {"holds", "unchecked"}

    def test_nor_derived_through_one_that_was_not_recorded(self, reference):
        edit = [llmtrace.ablate("blocks.0.attn.z_post", heads=[1])]
        trace = reference.trace("a b", capture=["blocks.0.attn.{v,pattern}", "logits"], edits=edit)
        with pytest.raises(SignalUnavailableError, match=r"blocks\.0\.attn\.z_post \(replayed or edited"):
            trace["blocks.0.attn.out"]
        assert trace["blocks.0.attn.z"].provenance.kind == "derived"

    def test_nor_through_a_replayed_one(self, reference):
        given = {"blocks.0.attn.out": np.zeros((3, 64))}
        trace = reference.trace("a b", capture=["blocks.0.resid_pre", "logits"], replay=given)
        with pytest.raises(SignalUnavailableError, match="replayed or edited"):
            trace["blocks.0.resid_mid"]

    def test_and_so_does_a_saved_one(self, reference, tmp_path):
        changes = [
            llmtrace.ablate("blocks.0.attn.z_post", heads=[1]),
            edits.add("blocks.1.resid_pre", np.arange(64.0), tokens=[-1]),
            edits.scale("blocks.1.mlp.post", 0.5),
        ]
        trace = reference.trace("a b", capture="logits", edits=changes)
        trace.save(tmp_path / "edited.trace")
        back = llmtrace.load(tmp_path / "edited.trace")
        assert list(map(str, back.edits)) == list(map(str, changes)) and back.given == trace.given
        np.testing.assert_array_equal(back.edits[1].value, np.arange(64.0))
        again = reference.trace("a b", capture="logits", edits=back.edits)
        np.testing.assert_array_equal(again["logits"].array, trace["logits"].array)

    def test_whose_operands_are_held_to_their_digests(self, reference, tmp_path):
        path = Path(tmp_path / "edited.trace")
        reference.trace("a b", capture="logits", edits=[edits.add("blocks.1.resid_pre", 0.5 + np.arange(64.0))]).save(
            path
        )
        content = path.read_bytes()
        place = content.index(np.float64(1.5).tobytes() + np.float64(2.5).tobytes())
        path.write_bytes(content[:place] + np.float64(9).tobytes() + content[place + 8 :])
        with pytest.raises(TraceFileError, match=r"edits\.0 is not what was saved"):
            llmtrace.load(path)


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("make", "error", "words"),
        [
            (lambda: llmtrace.ablate("blocks.0.attn.zed"), UnknownSignalError, r"matches no site.*Did you mean"),
            (
                lambda: llmtrace.ablate("blocks.0.resid_pre", heads=[0]),
                OptionError,
                r"resid_pre has no heads; its axes are token, d_model",
            ),
            (lambda: llmtrace.ablate("blocks.0.attn.pattern", channels=[0]), OptionError, "has no channels"),
            (lambda: llmtrace.ablate("blocks.0.attn.z", heads=[2]), OptionError, "head 2 is out of range"),
            (lambda: llmtrace.ablate("blocks.0.attn.z", tokens=[9]), PromptError, "token 9 is out of range"),
            (
                lambda: edits.add("blocks.0.resid_pre", [1.0, 2.0]),
                OptionError,
                r"value has shape \[2\], and what it changes \[3 64\]",
            ),
            (lambda: edits.add("blocks.0.resid_pre", float("nan")), OptionError, "NaN"),
            (
                lambda: edits.add("blocks.0.resid_pre", "much"),
                OptionError,
                "is a number or an array of numbers, not 'much'",
            ),
            (lambda: edits.replace("blocks.0.resid_pre", None), OptionError, "replace needs a value"),
            (lambda: "blocks.0.resid_pre", OptionError, r"takes a list of edits such as llmtrace\.ablate"),
        ],
    )
    def test_is_said_with_its_culprit(self, reference, make, error, words):
        with pytest.raises(error, match=words):
            reference.trace("a b", edits=[make()])

    def test_one_of_a_group_of_heads_that_share_keys(self):
        model = Model(Editing(equations(SPECS["sequential"])))
        with pytest.raises(OptionError, match=r"head 1 reads the same v as a head that is named.*all 2 heads"):
            model.trace(IDS, capture="logits", edits=[llmtrace.ablate("blocks.0.attn.v", heads=[0])])

    def test_an_edit_on_a_backend_that_edits_nothing(self):
        with pytest.raises(
            EditNotSupportedError,
            match=r"embed cannot be edited on the backend fake, which edits nothing\. The reference backend edits every site of a "
            r"checkpoint directory \(config\.json and safetensors\): llmtrace\.open\(directory, backend=\"reference\"\)\.$",
        ):
            Model(FakeSession(equations(SPECS["sequential"]))).trace(IDS, edits=[llmtrace.ablate("embed")])

    def test_an_edit_of_a_site_that_is_not_editable(self):
        model = Model(Editing(equations(SPECS["sequential"])))
        with pytest.raises(
            EditNotSupportedError, match=r"blocks\.0\.attn\.q cannot be edited .*which edits blocks\.L\.attn\.v\."
        ):
            model.trace(IDS, edits=[llmtrace.ablate("blocks.0.attn.q")])

    def test_an_edit_of_a_heads_result_points_to_what_it_is_made_of(self):
        class Mixed(FakeSession):
            editable = ("blocks.0.attn.z_post",)

        with pytest.raises(EditNotSupportedError, match=r"Edit blocks\.0\.attn\.z_post, with the same heads"):
            Model(Mixed(equations(SPECS["sequential"]))).trace(
                IDS, edits=[llmtrace.ablate("blocks.0.attn.result", heads=[1])]
            )

    @pytest.mark.parametrize("make", [edits.add, edits.scale, edits.replace])
    def test_a_finite_edit_that_the_type_cannot_hold(self, make):
        step = equations(SPECS["sequential"]).steps["blocks.0.resid_pre"]
        array = np.full(step.shape(3), 2, np.float32)
        (change,) = edits.changes([make("blocks.0.resid_pre", 1e39)], {step.site: step}, 3)[step.site]
        with pytest.raises(
            OptionError,
            match=r"\(blocks\.0\.resid_pre, 1e\+39\): it makes blocks\.0\.resid_pre larger than float32 can hold",
        ):
            change.apply(array)
        assert (array == 2).all()

    @pytest.mark.filterwarnings("error")
    def test_but_infinity_that_was_asked_for_or_there_before_is_no_error(self):
        step = equations(SPECS["sequential"]).steps["blocks.0.resid_pre"]
        array = np.full(step.shape(3), np.inf, np.float32)
        for edit in (edits.add(step.site, 1e39), edits.replace(step.site, np.inf), edits.scale(step.site, 1e39)):
            edits.changes([edit], {step.site: step}, 3)[step.site][0].apply(array)
        assert np.isinf(array).all()

    def test_an_edit_shows_no_operand_but_its_shape(self):
        assert repr(edits.add("embed", np.zeros((3, 64)))) == "<Edit add(embed, [3 64])>"


class Editing(FakeSession):
    editable = ("blocks.0.attn.v",)
