"""What cannot be taken as a trace is refused, all of it at once, and no file can run code."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
from attrs import evolve

import llmtrace
from llmtrace.errors import DumpError, PromptError
from llmtrace.model import Model
from llmtrace.spec import Unembedding
from tests.importing.conftest import IDS, archive, arrays, as_hooks, directory, recorded, safetensors
from tests.specs import SPECS, WeighedSession, equations


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def known():
    return recorded()


def refused(dump, known, words, prompt=None, **more):
    with pytest.raises((DumpError, PromptError), match=words) as caught:
        llmtrace.import_dump(dump, known[0], prompt, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_shapes_that_differ_are_named_at_once_with_what_was_expected(known):
    dump = arrays(known[1])
    dump["blocks.0.attn.z"] = dump["blocks.0.attn.z"][:, :, :-1]
    dump["blocks.0.resid_mid"] = dump["blocks.0.resid_mid"][:-1]
    dump["blocks.1.resid_mid"] = dump["blocks.1.resid_mid"][:-1]
    said = refused(dump, known, "does not fit a prompt of 5 tokens")
    assert "blocks.0.attn.z has shape [5, 4, 5] where blocks.0.attn.z is [token=5 head=4 d_value=6]" in said
    assert "blocks.L.resid_mid has shape [4, 12] where blocks.L.resid_mid is [token=5 d_model=12] (2 times)" in said


def test_all_unknown_names_are_named_at_once_with_near_ones(known):
    dump = arrays(known[1]) | {"blocks.0.attn.patern": np.zeros(3), "hook_nothing": np.zeros(3)}
    said = refused(dump, known, "names that are no sites")
    assert "did you mean blocks.0.attn.pattern" in said
    assert "hook_nothing" in said
    assert "--leave-out" in said


def test_unknown_names_are_left_out_where_that_is_asked_for_and_the_trace_says_so(known):
    model, trace = known
    dump = arrays(trace) | {"blocks.0.attn.patern": np.zeros(3), "mine": np.zeros(3)}
    found = llmtrace.import_dump(dump, model, leave_out=True)
    assert {each.name for each in found.left_out} == {"blocks.0.attn.patern", "mine"}
    assert list(found.trace) == list(trace)
    assert "Left out: blocks.0.attn.patern; mine." in found.trace.model.notes


@pytest.mark.parametrize("unembed", [Unembedding(scale=0.5), Unembedding(softcap=4.0)], ids=["scaled", "capped"])
def test_a_name_that_means_another_value_is_refused_with_the_reason(unembed):
    other = Model(WeighedSession(equations(evolve(SPECS["sequential"], unembed=unembed)), None, "float32"))
    dump = {"unembed.hook_out": other.trace(IDS, capture="logits")["logits"].array[None]}
    said = refused(dump, (other,), "is not the value of our logits", IDS)
    assert "before the scale and the softcap" in said


def test_the_same_name_is_taken_of_models_where_the_value_is_ours(known):
    model, trace = known
    found = llmtrace.import_dump({"unembed.hook_out": trace["logits"].array[None]}, model, IDS)
    assert found.trace["logits"].array.tobytes() == trace["logits"].array.tobytes()


def test_a_hook_of_a_site_that_this_model_lacks_is_refused(known):
    refused({"hook_pos_embed": np.zeros((1, 5, 12))}, known, "pos_embed, which this model does not have", IDS)


def test_modules_that_transformer_lens_wraps_are_left_out_by_themselves(known):
    model, trace = known
    found = llmtrace.import_dump(as_hooks(trace) | {"blocks.0.attn.q.hook_in": np.zeros(3)}, model)
    assert [each.name for each in found.left_out] == ["blocks.0.attn.q.hook_in"]


def test_two_arrays_of_one_site_that_differ_are_refused(known, tmp_path):
    dump = as_hooks(known[1])
    dump["blocks.0.hook_in"] = dump["blocks.0.hook_resid_pre"] + 1
    path = directory(tmp_path / "dump", dump)
    said = refused(path, known, "does not fit")
    assert "blocks.0.hook_resid_pre and blocks.0.hook_in are both blocks.0.resid_pre, and differ" in said or (
        "blocks.0.hook_in and blocks.0.hook_resid_pre are both blocks.0.resid_pre, and differ" in said
    )


def test_two_arrays_of_one_site_are_the_same_bit_for_bit_nan_and_all(known):
    value = known[1]["blocks.0.resid_pre"].array.copy()
    value[0, 0] = np.nan
    value[0, 1] = 0.0
    names = ("blocks.0.hook_resid_pre", "blocks.0.hook_in")
    found = llmtrace.import_dump(dict.fromkeys(names, value), known[0], IDS)
    assert found.trace["blocks.0.resid_pre"].array.tobytes() == value.tobytes()
    negative = np.where(value == 0, np.float32(-0.0), value)
    for other in (negative, value.astype(np.float64)):
        refused(dict(zip(names, (value, other), strict=True)), known, "are both blocks.0.resid_pre, and differ", IDS)


def test_of_many_that_are_left_out_a_note_names_the_first(known):
    model, trace = known
    found = llmtrace.import_dump(arrays(trace) | dict.fromkeys("abcde", np.zeros(3)), model, leave_out=True)
    assert found.trace.model.notes[-1] == "Left out: a; b; c; and 2 more."


def test_a_batch_of_two_is_refused_unless_one_is_chosen(known):
    dump = {name: np.stack([array, array]) for name, array in arrays(known[1]).items()}
    refused(dump, known, r"tokens in this dict holds 2 sequences: choose one")
    refused({**dump, "tokens": np.array(IDS)}, known, r"embed holds 2 sequences: choose one \(sequence=, --sequence\)")
    refused(dump, known, "none of them is number 2", sequence=2)


def test_a_dump_without_tokens_needs_a_prompt(known):
    dump = arrays(known[1])
    del dump["tokens"]
    refused(dump, known, r"has no token ids: give the prompt .*--tokens")
    refused(dump, known, "no tokenizer", "a text")
    refused(dump, known, "does not fit a prompt of 2 tokens", [1, 2])


def test_tokens_that_contradict_the_prompt_are_refused(known):
    refused(
        arrays(known[1]),
        known,
        r"holds the tokens \[1, 4, 2, 4, 7\], and the prompt is \[1, 4, 2, 4, 6\]",
        [1, 4, 2, 4, 6],
    )


@pytest.mark.parametrize("tokens", [np.zeros(5), np.zeros((1, 5, 1), int), np.array(3), np.array([1, 4, 2, 4, 99])])
def test_tokens_that_are_none_are_refused(known, tokens):
    refused(arrays(known[1]) | {"tokens": tokens}, known, "should hold token ids|outside the vocabulary")


@pytest.mark.parametrize("dtype", [complex, bool, np.int16, "U3", "M8[s]"])
def test_types_that_no_signal_has_are_refused(known, dtype):
    dump = arrays(known[1]) | {"embed": np.zeros((5, 12)).astype(dtype)}
    refused(dump, known, "embed holds .*a signal may hold float64")


def test_nan_is_a_verdict_and_not_a_number(known):
    model, trace = known
    dump = {name: array.copy() for name, array in arrays(trace).items()}
    dump["blocks.0.mlp.out"][2, 3] = np.nan
    found = llmtrace.import_dump(dump, model)
    assert found.violated[0].site == "blocks.0.mlp.out"
    assert found.violated[0].reason == "holds NaN or infinite values"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "holds no arrays"),
        ([1, 2], "A dump is a mapping"),
        ({"embed": [1, 2]}, "embed in this dict is a list and no array"),
        ("/no/such/dump", "There is no file or directory"),
        ("x" * 5000, "There is no file or directory"),
        ("a\0b.npz", "There is no file or directory"),
        ("/dev/null", "There is no file or directory"),
        ({"tokens": np.array(IDS)}, "holds nothing of this model"),
    ],
)
def test_what_is_no_dump_is_refused(known, source, words):
    refused(source, known, words)


def test_a_tensor_that_is_no_plain_array_is_refused(known):
    torch = pytest.importorskip("torch", reason="pip install torch")
    for tensor in (
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.zeros(3, dtype=torch.float8_e4m3fn),
    ):
        refused({"embed": tensor}, known, "embed in this dict is no plain array", IDS)


def test_a_directory_without_arrays_is_refused(known, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    refused(tmp_path, known, "holds no .npy files")


@pytest.mark.parametrize("form", [directory, archive, safetensors])
@pytest.mark.parametrize("keep", [0, 7, 60, 0.5, -1])
def test_a_truncated_file_is_refused_by_name(known, tmp_path, form, keep):
    path = form(tmp_path / "dump", arrays(known[1]))
    file = path / "blocks.0.attn.z.npy" if form is directory else type(tmp_path)(path)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    said = refused(path, known, "no whole file|cannot be opened")
    assert file.name in said
    assert ": write it again with numpy" in said or said.endswith("Write it again.")


@pytest.mark.parametrize("name", ["blocks.0.attn.z.npy", "dump.npz", "dump.pt", "dump.pkl", "dump.safetensors"])
def test_a_pickle_of_any_name_is_refused_and_does_not_run(known, tmp_path, name):
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / name).open("wb") as file:
        pickle.dump(Bomb(tmp_path / "ran"), file)
    refused(
        tmp_path / "d" if name.endswith(".npy") else tmp_path / "d" / name, known, "pickle|no whole file|safetensors"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", [directory, archive])
def test_arrays_of_objects_are_refused_and_do_not_run(known, tmp_path, form):
    path = form(tmp_path / "dump", {"embed": np.array([Bomb(tmp_path / "ran")], dtype=object)})
    refused(path, known, "no whole file of plain numbers .*[Oo]bject", IDS)
    assert not (tmp_path / "ran").exists()


def test_a_torch_file_is_refused_with_how_to_save_it_otherwise(known, tmp_path):
    (tmp_path / "cache.pt").write_bytes(b"")
    refused(tmp_path / "cache.pt", known, r"pickle, which can run code.*safetensors\.torch\.save_file")


def test_what_stands_beside_arrays_in_an_archive_is_refused(known, tmp_path):
    path = archive(tmp_path / "dump", arrays(known[1]))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("readme", "text")
    refused(path, known, "readme, which is no array")


def test_an_archive_that_holds_a_name_twice_is_refused(known, tmp_path):
    path = archive(tmp_path / "dump", arrays(known[1]))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("embed.npy", file.read("embed.npy"))
    refused(path, known, "one name twice")


def test_a_header_that_asks_for_more_than_there_is_is_refused(known, tmp_path):
    path = directory(tmp_path / "dump", arrays(known[1])) / "embed.npy"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(5, 12), }".ljust(22), b"(5, 12000000000000), }"))
    assert path.read_bytes() != data
    refused(path.parent, known, "no whole file")


@pytest.mark.parametrize("header", [b"(5, 12", b"(5, 12)", b"lambda: 0", b"(" * 200, b"\xff", b"-1"])
def test_a_header_that_is_no_description_is_refused(known, tmp_path, header):
    path = directory(tmp_path / "dump", arrays(known[1])) / "embed.npy"
    path.write_bytes(path.read_bytes()[:10] + header.ljust(118) + bytes(240))
    refused(path.parent, known, "no whole file")


def test_an_archive_that_is_a_single_array_is_refused(known, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", known, "no archive")
