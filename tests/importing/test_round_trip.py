"""What was recorded, kept as another tool would keep it, and imported, is what was recorded; and does all that a recorded trace does."""

from __future__ import annotations

import numpy as np
import pytest

import llmtrace
from llmtrace.schema.names import hooks
from llmtrace.view.trace import save_trace_page
from tests.importing.conftest import IDS, archive, arrays, as_hooks, recorded, safetensors
from tests.specs import SPECS


def same(found, trace, sites=None):
    assert list(found.trace) == [site for site in trace if sites is None or site in sites]
    for site, signal in found.trace.signals.items():
        assert signal.dtype == trace[site].dtype
        assert signal.axes == trace[site].axes
        assert signal.array.tobytes() == trace[site].array.tobytes()
    assert found.trace.ids == trace.ids


@pytest.mark.parametrize("kind", SPECS)
def test_every_signal_of_every_kind_of_model_comes_back_bit_for_bit_and_holds(kind):
    model, trace = recorded(kind)
    found = llmtrace.import_dump(arrays(trace), model)
    same(found, trace)
    judged = {each.site for each in trace.verify() if each.status == "holds"}
    assert {each.site for each in found.verdicts.judged} == judged
    assert not found.violated
    assert not found.inherited


def test_files_of_every_kind_hold_the_same(written):
    model, trace = recorded("experts")
    found = llmtrace.import_dump(written(arrays(trace)), model)
    same(found, trace)
    assert found.verdicts.verdict == "holds"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_type_stays_what_it_is_and_says_how_finely_the_signal_is_rounded(tmp_path, dtype):
    model, trace = recorded("sequential", dtype)
    form = safetensors if dtype == "bfloat16" else archive  # NumPy's own format does not know it
    found = llmtrace.import_dump(form(tmp_path / "dump", arrays(trace)), model)
    same(found, trace)
    assert {signal.precision.storage for signal in found.trace.signals.values()} == {dtype}
    summed = "float64" if dtype == "float64" else "float32"
    assert {signal.precision.accumulation for signal in found.trace.signals.values()} == {summed}
    assert found.verdicts.verdict == "holds"


@pytest.mark.parametrize("kind", ["sequential", "learned positions", "parallel", "experts"])
def test_names_of_transformer_lens_are_read_with_a_batch_of_one(written, kind):
    model, trace = recorded(kind)
    found = llmtrace.import_dump(written(as_hooks(trace)), model)
    same(found, trace, {site for site in trace if hooks(site)})
    assert found.verdicts.verdict == "holds"


def test_torch_tensors_are_read_in_every_type():
    torch = pytest.importorskip("torch", reason="pip install torch")
    model, trace = recorded("sequential", "bfloat16")
    tensors = {
        name: torch.from_numpy(array.astype(np.float32)).bfloat16().requires_grad_()
        if name != "tokens"
        else torch.tensor(IDS)
        for name, array in arrays(trace).items()
    }
    same(llmtrace.import_dump(tensors, model), trace)


def test_the_order_of_bytes_and_of_axes_in_memory_is_nobodys_business(tmp_path):
    model, trace = recorded()
    dump = {
        name: np.asfortranarray(array).astype(array.dtype.newbyteorder(">")) for name, array in arrays(trace).items()
    }
    same(llmtrace.import_dump(archive(tmp_path / "dump", dump), model), trace)


def test_a_suffix_may_be_written_in_capitals(tmp_path):
    model, trace = recorded()
    path = archive(tmp_path / "dump", arrays(trace))
    same(llmtrace.import_dump(path.rename(tmp_path / "DUMP.NPZ"), model), trace)


def test_two_names_of_one_value_are_one_signal():
    model, trace = recorded()
    dump = as_hooks(trace)
    dump["blocks.0.hook_in"] = dump["blocks.0.hook_resid_pre"].copy()
    same(llmtrace.import_dump(dump, model), trace, {site for site in trace if hooks(site)})


def test_what_is_imported_is_not_changed_by_whoever_handed_it_over():
    model, trace = recorded()
    dump = {name: array.copy() for name, array in arrays(trace).items()}
    found = llmtrace.import_dump(dump, model)
    dump["embed"][:] = 7
    same(found, trace)
    with pytest.raises(ValueError, match="read-only"):
        found.trace["embed"].array[:] = 7


def test_one_sequence_of_a_batch_is_taken_by_its_number():
    model, trace = recorded()
    dump = {name: np.stack([np.zeros_like(array), array]) for name, array in arrays(trace).items()}
    found = llmtrace.import_dump(dump, model, sequence=1)
    same(found, trace)
    assert "sequence 1" in found.trace["embed"].provenance.detail


def test_what_has_no_batch_is_of_no_sequence():
    model, trace = recorded()
    dump = {"embed": trace["embed"].array.T, "logits": np.stack([trace["logits"].array] * 2)}
    found = llmtrace.import_dump(
        dump, model, IDS, names={"embed": {"site": "embed", "axes": "d_model token"}}, sequence=1
    ).trace
    assert found["embed"].provenance.detail == "embed of this dict; from [d_model token]"
    assert found["logits"].provenance.detail == "logits of this dict; from [batch token vocab], sequence 1"


def test_a_signal_says_what_it_was_made_of(tmp_path):
    model, trace = recorded()
    path = archive(tmp_path / "cache", as_hooks(trace))
    signal = llmtrace.import_dump(path, model).trace["blocks.0.resid_pre"]
    assert str(signal.provenance) == f"converted(blocks.0.hook_resid_pre of {path}; from [batch token d_model])"


@pytest.mark.parametrize("given", [IDS, None])
def test_token_ids_are_given_or_found_in_the_dump(given):
    model, trace = recorded()
    dump = arrays(trace)
    if given:
        del dump["tokens"]
    assert llmtrace.import_dump(dump, model, given).trace.ids == IDS


@pytest.fixture(scope="module")
def induction(tmp_path_factory):
    """A saved import of the embedded model, and the trace that it was made of."""
    path = tmp_path_factory.mktemp("induction")
    with llmtrace.open("builtin:induction", backend="reference") as model:
        trace = model.trace("c a f e c a")
    found = llmtrace.import_dump(archive(path / "dump", arrays(trace)), "reference:builtin:induction", "c a f e c a")
    found.trace.save(path / "imported.trace")
    return path / "imported.trace", trace


def test_an_import_is_saved_and_loaded_with_its_texts_and_notes(induction):
    path, trace = induction
    loaded = llmtrace.load(path)
    assert all(loaded[site].array.tobytes() == trace[site].array.tobytes() for site in trace)
    assert loaded.tokens == trace.tokens
    assert loaded.model.runtime == "unknown"
    assert "what computed it is not known" in loaded.model.notes[0]


def test_an_import_agrees_with_its_model(induction):
    path, _ = induction
    comparison = llmtrace.compare("reference:builtin:induction", path)
    assert comparison.passed
    assert [each.status for each in comparison.candidates[0].sites].count("holds") > 40


def test_an_import_of_another_prompt_does_not_agree_with_its_model(induction, tmp_path):
    _, trace = induction
    dump = arrays(trace) | {"tokens": np.array(trace.ids[::-1])}
    found = llmtrace.import_dump(dump, "reference:builtin:induction")
    assert [each.site for each in found.violated] == ["embed"]


def test_an_import_has_a_page(induction, tmp_path):
    path, _ = induction
    save_trace_page(tmp_path / "page.html", llmtrace.load(path))
    assert "blocks.1.attn.pattern" in (tmp_path / "page.html").read_text("utf-8")


def test_weights_stay_at_hand_while_the_model_is_open(induction):
    _, trace = induction
    dump = {site: trace[site].array for site in ("blocks.1.attn.z", "blocks.1.attn.z_post")}
    assert not llmtrace.import_dump(dump, "reference:builtin:induction", trace.ids).trace.weights
    with llmtrace.open("builtin:induction", backend="reference") as model:
        imported = llmtrace.import_dump(dump, model, trace.ids).trace
        assert np.allclose(imported["blocks.1.attn.out"].array, trace["blocks.1.attn.out"].array)


def test_a_trace_says_whose_arrays_they_are(induction):
    path, trace = induction
    found = llmtrace.import_dump(arrays(trace), path)
    assert found.verdicts.verdict == "holds"
    assert found.trace.model.source == "builtin:induction"


def test_an_import_says_how_its_model_is_opened_and_not_what_computed_it(induction, tmp_path):
    _, trace = induction
    with llmtrace.open("builtin:induction", backend="reference", options={"dtype": "float64"}, preset="exact") as model:
        own = model.info
        found = llmtrace.import_dump(arrays(trace), model).trace
    info = found.model
    assert (info.source, info.backend, info.preset) == (own.source, own.backend, own.preset)
    assert dict(info.options) == dict(own.options) and info.options
    assert info.fingerprint == own.fingerprint != ""
    assert own.runtime != info.runtime == info.device == "unknown"
    found.save(tmp_path / "a.trace")
    assert llmtrace.import_dump(arrays(trace), tmp_path / "a.trace").trace.model.fingerprint == own.fingerprint
