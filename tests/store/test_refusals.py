"""A file that was cut, altered, or never was a trace is refused with its name and what is wrong; nothing in it can run."""

import json
import os
import pickle
import socket
import threading

import numpy as np
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import llmtrace
from llmtrace.errors import LLMTraceError, SchemaVersionError, TraceFileError


def refused(path, words, error=TraceFileError):
    with pytest.raises(error, match=words) as caught:
        llmtrace.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "none.trace", "There is no file")


def test_a_directory_and_a_device(tmp_path):
    refused(tmp_path, "is not a file")
    refused("/dev/null", "is not a file")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []

    def load():
        with pytest.raises(TraceFileError, match="is not a file"):
            llmtrace.load(tmp_path / "pipe")
        found.append("refused")

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(5)
    assert found == ["refused"]


def test_a_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        refused(tmp_path / "s", "is not a file")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\0" * 8, b"\0" * 100, b"GGUF" + b"\0" * 100, b"\xff" * 100, b"hello, this is text " * 10]
)
def test_what_never_was_a_trace(tmp_path, content):
    path = tmp_path / "a.trace"
    path.write_bytes(content)
    refused(path, "cannot be opened as a trace")


def test_safetensors_of_something_else(tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "a.trace")
    refused(tmp_path / "a.trace", "without a manifest, so not a trace")


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "a.trace"
    path.write_bytes(pickle.dumps(Trap()))
    refused(path, "not a trace")
    assert not (tmp_path / "sprung").exists()


def test_a_file_cut_anywhere(saved):
    whole = saved.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    for size in sorted({0, 1, 7, 8, 9, 100, length - 1, length, length + 1, len(whole) - 8, len(whole) - 1}):
        saved.write_bytes(whole[:size])
        refused(saved, "cannot be opened as a trace")


def test_a_file_with_something_behind_it(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    refused(saved, "followed by something")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_flipped_bit_is_never_a_wrong_number(trace, saved, data):
    whole = saved.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    saved.write_bytes(flipped)
    try:
        loaded = llmtrace.load(saved)
        for site in loaded:
            assert loaded[site].array.tobytes() == trace[site].array.tobytes()
        assert (loaded.spec, loaded.model, loaded.tokens) == (trace.spec, trace.model, trace.tokens)
    except LLMTraceError as error:
        assert str(saved) in str(error)  # noqa: PT017
    finally:
        saved.write_bytes(whole)


def test_altered_numbers_are_found_when_they_are_read_and_name_their_site(saved, trace):
    whole = bytearray(saved.read_bytes())
    whole[-1] ^= 1
    saved.write_bytes(whole)
    loaded = llmtrace.load(saved)
    bad = [site for site in trace if _altered(loaded, site, saved)]
    assert len(bad) == 1
    assert loaded["embed"].array.any() or bad == ["embed"]


def _altered(loaded, site, path):
    try:
        loaded[site].array  # noqa: B018
    except TraceFileError as error:
        assert site in str(error)  # noqa: PT017
        assert str(path) in str(error)  # noqa: PT017
        return True
    return False


def test_a_manifest_changed_by_hand(file):
    text = file.header["__metadata__"]["llmtrace"].replace('"fake"', '"real"')
    file.header["__metadata__"]["llmtrace"] = text
    refused(file.write(json.dumps(file.header)), "its manifest was altered")
    del file.header["__metadata__"]["llmtrace_sha256"]
    refused(file.write(json.dumps(file.header)), "its manifest was altered")


@pytest.mark.parametrize("name", ["schema_version", "format_version"])
def test_another_version_is_an_error_of_its_own(file, name):
    file.manifest[name] = 999
    file.manifest["a key of the future"] = {}
    refused(file.write(), f"has {name} 999, and this LLMTrace reads 1: it was written by version", SchemaVersionError)
    file.manifest[name] = "1"
    refused(file.write(), f"has no {name}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ("[]", "not a trace"),
        ("{" + '"a":[' * 40 + "]" * 40 + "}", "nested deeper than 32"),
        ('{"a": ' + "[" * 100_000, "nested deeper"),
        ('{"a": "' + '\\"' * 50_000, "not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": 1', "not JSON"),
        ('{"__metadata__": 5}', "metadata"),
        ('{"__metadata__": {"llmtrace": 5}}', "metadata"),
        ('{"t": 5}', "describes 't' badly"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_header_that_is_not_plain_json(file, text, words):
    refused(file.write(text), words)


def test_a_header_that_is_not_utf8(saved):
    whole = bytearray(saved.read_bytes())
    whole[20] = 0xFF
    saved.write_bytes(whole)
    refused(saved, "not JSON")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[]", "5", '"text"', "{}", "{" * 50, "nonsense"])
def test_a_manifest_that_is_not_one(file, text):
    refused(file.write(manifest_text=text), "cannot be opened as a trace")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 10_000])
def test_a_header_longer_than_the_file_or_the_limit(saved, length):
    saved.write_bytes(length.to_bytes(8, "little") + saved.read_bytes()[8:9000])
    refused(saved, "truncated or not a trace")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(dtype="F8"), "of the type 'F8'"),
        (lambda row: row.update(dtype=["F32"]), "badly"),
        (lambda row: row.update(shape=[-1, 12]), "badly"),
        (lambda row: row.update(shape=[4, 12.0]), "badly"),
        (lambda row: row.update(shape=[True, 12]), "badly"),
        (lambda row: row.update(shape=[2**62, 4]), "badly"),
        (lambda row: row.update(shape=[2**61, 2**61, 2**61]), "bytes for F32 of shape"),
        (lambda row: row.update(shape=[1] * 9), "badly"),
        (lambda row: row.update(shape=[5, 12]), "bytes for F32 of shape"),
        (lambda row: row.update(shape=[12, 4]), "describe embed differently"),
        (lambda row: row.update(data_offsets=[row["data_offsets"][0]]), "badly"),
        (lambda row: row.update(data_offsets=[-4, 188]), "badly"),
        (lambda row: row.update(data_offsets=row["data_offsets"][::-1]), "bytes for F32"),
        (lambda row: row.update(data_offsets=[place + 4 for place in row["data_offsets"]]), "gap|overlaps"),
        (lambda row: row.update(data_offsets=[place + 1 for place in row["data_offsets"]]), "gap|overlaps"),
        (lambda row: row.update(data_offsets=[place + 2**40 for place in row["data_offsets"]]), "gap"),
        (lambda row: row.pop("shape"), "badly"),
        (lambda row: row.update(code="import os"), "badly"),
    ],
)
def test_a_tensor_that_is_not_where_or_what_it_says(file, change, words):
    change(file.header["embed"])
    refused(file.write(), words)


def test_tensors_that_do_not_start_at_a_multiple_of_their_elements_bytes(saved):
    """Another safetensors reader copies them; here they are mapped as they lie."""
    whole = saved.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    saved.write_bytes((length + 1).to_bytes(8, "little") + whole[8 : 8 + length] + b" " + whole[8 + length :])
    refused(saved, r"multiple of its element's \d bytes")


def test_two_tensors_in_one_place(file):
    embed, post = file.header["embed"], file.header["blocks.0.resid_post"]
    embed["data_offsets"] = list(post["data_offsets"])
    refused(file.write(), "overlaps|gap")


def test_a_tensor_that_the_manifest_does_not_know_and_the_other_way(file):
    entry = file.manifest["signals"].pop()
    refused(file.write(), "name different signals")
    file.manifest["signals"] += [entry, entry]
    refused(file.write(), "two signals of one site")


def set_in(record, path, value):
    *way, last = path
    for step in way:
        record = record[step]
    record[last] = value


BRANCH = ("spec", "blocks", 0, "branches")
ATTENTION = (*BRANCH, 0, "module")
MOE = (*BRANCH, 1, "module")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("extra",), 1, "extra"),
        (("spec", "extra"), 1, "extra"),
        ((*ATTENTION, "__class__"), "os.system", "__class__"),
        ((*ATTENTION, "record"), "Popen", "'Popen' is none of Attention, Mlp"),
        ((*ATTENTION, "record"), ["Attention"], "is none of"),
        ((*ATTENTION, "record"), "Mlp", "heads|d_mlp"),
        ((*ATTENTION, "rotary", "scaling"), {"record": "Norm", "eps": 1.0}, "'Norm' is none of Linear"),
        (("spec", "d_model"), "12", "'12' is not int"),
        (("spec", "d_model"), True, "True is not int"),
        (("spec", "d_model"), 12.0, "12.0 is not int"),
        (("spec", "ln_final", "eps"), "x", "not a finite number"),
        (("spec", "family"), 5, "5 is not str"),
        (("spec", "blocks"), "text", "not list"),
        (("spec",), None, "spec"),
        (("tokens", 0, "bytes"), "not base64!", r"tokens\[0\].bytes"),
        (("tokens", 0, "id"), -1, "outside the vocabulary"),
        (("tokens", 0, "id"), 11, "token 11 is outside the vocabulary of 11"),
        (("tokens",), [], "no tokens"),
        (("selection", "picks"), [{"pattern": 5}], "not str"),
        (("model", "preset"), "fast", "preset"),
        (("model", "settings"), {"a": 1}, "not str"),
        (("signals", 0, "axes"), ["d_model", "token"], "axes d_model token instead of token d_model"),
        (("signals", 0, "site"), "embedd", "different signals"),
        (("signals", 0, "dtype"), "int32", "describe embed differently"),
        (("signals", 0, "shape"), [12, 4], "describe embed differently"),
        (("signals", 0, "precision", "storage"), "float8", "must be in"),
        (("signals", 0, "provenance", "kind"), "guessed", "provenance"),
        (("signals", 0, "cut"), {"indices": [[0], None]}, r"shape \[4, 12\] instead of \[1, 12\]"),
        (("signals", 0, "cut"), {"indices": [[0, 1, 2, 4], None]}, "cut where it has nothing"),
        (("signals", 0, "cut"), {"indices": [[-1, 0, 1, 2], None]}, "cut where it has nothing"),
        (("signals", 0, "cut"), {"indices": [None]}, "cut where it has nothing"),
        ((*ATTENTION, "kv_heads"), 3, "4 query heads, which 3 key/value heads cannot share"),
        ((*ATTENTION, "kv_heads"), 0, "kv_heads = 0; it must be a positive integer"),
        ((*ATTENTION, "rotary", "width"), 8, "8 rotated channels of heads that have 6"),
        ((*ATTENTION, "rotary", "width"), 3, "3 rotated channels"),
        (
            (*ATTENTION, "rotary", "scaling"),
            {"record": "LongRope", "short": [1], "long": [1], "context": 8},
            "not 3 numbers each",
        ),
        ((*MOE, "choices"), 6, "6 choices of 5 experts"),
        ((*MOE, "expert", "act"), "exec", "the activation 'exec'"),
        ((*BRANCH, 1, "reads"), "nowhere", "a part .* reads 'nowhere'"),
        ((*BRANCH, 1, "reads"), "resid_post", "not one of a model"),
        (("spec", "ln_final", "over"), "no_axis", "not one of a model"),
        (("spec", "ln_final", "over"), "", "a norm over"),
        ((*BRANCH, 0, "name"), "attn\x1b]0;pwned\x07", r"a branch 'attn\\x1b\]0;pwned\\x07'"),
        (("spec", "family"), "\x1b[2J", r"its family '\\x1b\[2J'"),
        (("spec", "ln_final", "eps"), -5.0, "eps = -5.0 in a norm"),
        (("spec", "vocab"), 0, "outside the vocabulary|vocab"),
    ],
)
def test_a_manifest_that_does_not_hold_together(file, path, value, words):
    set_in(file.manifest, path, value)
    refused(file.write(), words)


def test_a_number_too_large_for_a_float(file):
    text = json.dumps(file.manifest).replace('"eps": 1e-05', '"eps": 1e999', 1)
    assert "1e999" in text
    refused(file.write(manifest_text=text), "not a finite number")


def test_a_site_that_the_model_does_not_have(file):
    file.manifest["signals"][0]["site"] = "blocks.9.resid_pre"
    file.header = {("blocks.9.resid_pre" if name == "embed" else name): row for name, row in file.header.items()}
    refused(file.write(), "'blocks.9.resid_pre' is no site of its model")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_whatever_a_manifest_says_the_answer_is_a_trace_or_a_typed_error(file, data):
    import copy

    kept = copy.deepcopy(file.manifest)
    record, way = file.manifest, []
    while isinstance(record, (dict, list)) and record and (not way or data.draw(st.integers(0, 9))):
        key = data.draw(st.sampled_from(sorted(record) if isinstance(record, dict) else range(len(record))))
        way.append((record, key))
        record = record[key]
    holder, key = way[-1]
    holder[key] = data.draw(
        st.sampled_from([None, True, 0, -1, 1, 2**31, 1.5, "", "x", "head", [], {}, [0], {"record": "Mlp"}])
        | st.text(max_size=5)
    )
    try:
        loaded = llmtrace.load(file.write())
        for site in loaded.equations.steps:
            if site in loaded:
                loaded[site]
    except LLMTraceError as error:
        assert str(error)  # noqa: PT017
    finally:
        file.manifest = kept


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    from pathlib import Path

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: (
            (_ for _ in ()).throw(PermissionError(13, "Permission denied")) if self == saved else opened(self, *a, **k)
        ),
    )
    refused(saved, "cannot be read: Permission denied")


def test_weights_do_not_come_from_the_file(trace, saved):
    assert trace.weights
    assert llmtrace.load(saved).weights == {}
    assert b"W_Q" not in saved.read_bytes()
    assert evolve(trace, weights={}).weights == {}
