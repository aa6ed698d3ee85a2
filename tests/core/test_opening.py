"""Opening a model: which backend, with which settings, and whether it stays the same when it is observed."""

import os
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import attrs
import ml_dtypes
import numpy as np
import pytest

import llmtrace
from llmtrace import opening, probing
from llmtrace.data import DEMO_MODEL, embedded
from llmtrace.errors import BackendError, BackendNotFoundError, ModelOpenError, OptionError, SchemaViolationError
from llmtrace.neutral import WALKS, check_neutral, walk
from llmtrace.opening import choose
from llmtrace.plugins import BackendEntry, Plugins
from llmtrace.settings import as_text, settings
from tests.specs import SPECS, FakeOptions, FakeSession, WeighedSession, capture, equations, model, sequential


def backend(name, fit=None):
    """A backend that opens `.model` files, as near as `fit` says."""

    class Backend:
        runtime = "Fake"
        distributions = ()
        options = FakeOptions
        capabilities = ("weights",)
        opened: list = []

        @staticmethod
        def probe(source, path):
            if isinstance(fit, Exception):
                raise fit
            return fit if path is not None and path.suffix == ".model" else None

        @staticmethod
        def preset(preset):
            return FakeOptions(threads=1 if preset == "exact" else 4)

        @classmethod
        def open(cls, source, options):
            cls.opened.append((source, options))
            session = WeighedSession(equations(SPECS["sequential"]))
            session.info = attrs.evolve(session.info, backend=name)
            return session

    Backend.name = name
    return Backend


def installed(*backends, broken=()):
    entries = {b.name: BackendEntry(b.name, f"llmtrace-{b.name}", "1", "ok", "", b) for b in backends}
    entries |= {name: BackendEntry(name, f"llmtrace-{name}", "1", "broken", "it lacks a runtime") for name in broken}
    return Plugins(entries, {}, {}, ())


NATIVE, CONVERTING, REFERENCE = backend("zeta", "native"), backend("beta", "converting"), backend("alpha", "reference")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.model"
    path.write_bytes(b"x")
    return str(path)


def test_native_comes_before_converting_before_reference(file):
    assert choose(file, found=installed(REFERENCE, CONVERTING, NATIVE)).backend is NATIVE
    assert choose(file, found=installed(REFERENCE, CONVERTING)).backend is CONVERTING
    assert choose(file, found=installed(REFERENCE)).reason == "reference"


def able(name, *capabilities, fit="native"):
    made = backend(name, fit)
    made.capabilities = capabilities
    return made


def test_of_two_that_are_as_near_the_one_that_can_do_more_is_taken(file):
    less, more = able("a", "weights"), able("b", "weights", "edits")
    assert choose(file, found=installed(less, more)).backend is more
    assert choose(file, found=installed(more, less)).backend is more


def test_nearness_counts_for_more_than_abilities(file):
    assert choose(file, found=installed(able("a"), able("b", "weights", "edits", fit="converting"))).backend.name == "a"


def test_of_two_that_can_do_as_much_the_first_by_name_is_taken(file):
    assert choose(file, found=installed(backend("b", "native"), backend("a", "native"))).backend.name == "a"


def test_who_opens_it_as_well_is_told_in_a_note_and_stays_in_the_trace(file, monkeypatch):
    found = installed(
        backend("b", "native"), backend("a", "native"), backend("c", "native"), backend("d", "converting")
    )
    note = "b, c open this too, as near (native) as a, which was taken: --backend b takes the other"
    assert choose(file, found=found).note == note
    monkeypatch.setattr(opening, "plugins", lambda: found)
    with llmtrace.open(file) as opened:
        assert opened.warnings == ()
        assert opened.trace([1, 2]).model.notes == (note,)
    with llmtrace.open(file, backend="b") as opened:
        assert opened.info.notes == ()


def test_who_opens_it_alone_of_its_fit_needs_no_note(file):
    assert choose(file, found=installed(NATIVE, CONVERTING, REFERENCE)).note == ""


def test_a_probe_that_does_not_end_counts_as_no_and_is_reported(file, monkeypatch):
    monkeypatch.setattr(probing, "PATIENCE", 0.1)
    done = threading.Event()
    slow = backend("slow")
    slow.probe = staticmethod(lambda source, path: done.wait(30) and "native")
    choice = choose(file, found=installed(slow, REFERENCE))
    done.set()
    assert choice.backend is REFERENCE
    assert choice.warnings == ("slow is broken (its probe gave no answer within 0.1 s)",)


def test_a_named_backend_decides(file):
    found = installed(NATIVE, REFERENCE)
    assert choose(file, "alpha", found).backend is REFERENCE
    assert choose(f"alpha:{file}", found=found) == opening.Choice(file, REFERENCE, "named")
    assert choose(f"alpha:{file}", "alpha", found).source == file


def test_a_prefix_counts_only_if_it_is_a_backend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("what:ever.model").write_bytes(b"x")
    assert choose("what:ever.model", found=installed(NATIVE)).source == "what:ever.model"


def test_a_backend_that_is_not_there_is_told_near_names(file):
    with pytest.raises(BackendNotFoundError, match="Did you mean alpha"):
        choose(file, "alhpa", installed(REFERENCE))


def test_a_broken_backend_is_not_probed_and_its_reason_is_given(file):
    assert choose(file, found=installed(REFERENCE, broken=["zeta"])).backend is REFERENCE
    with pytest.raises(BackendNotFoundError, match="it lacks a runtime"):
        choose(file, found=installed(broken=["zeta"]))


def test_a_probe_that_fails_spoils_no_other(file):
    ill = backend("ill", RuntimeError("no idea"))
    assert choose(file, found=installed(ill, REFERENCE)).backend is REFERENCE
    with pytest.raises(BackendNotFoundError, match=r"ill is broken \(its probe failed: RuntimeError: no idea\)"):
        choose(file, found=installed(ill))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RuntimeError("no idea"), "its probe failed: RuntimeError: no idea"),
        ("yes", "its probe answered 'yes', which is not native, converting, reference or None"),
        (True, "its probe answered True"),
        ([], r"its probe answered \[\]"),
    ],
)
def test_a_probe_that_cannot_say_is_reported_also_where_another_opens_the_source(file, monkeypatch, answer, words):
    found = installed(backend("ill", answer), NATIVE)
    (warning,) = choose(file, found=found).warnings
    assert re.search(f"^ill is broken .{words}", warning)
    monkeypatch.setattr(opening, "plugins", lambda: found)
    with llmtrace.open(file) as opened:
        assert opened.info.backend == "zeta"
        assert opened.warnings == (warning,)


def test_sound_probes_leave_nothing_to_report(file):
    assert choose(file, found=installed(NATIVE, REFERENCE)).warnings == ()


def test_a_prefix_that_names_a_broken_backend_says_that_it_is_broken():
    with pytest.raises(BackendNotFoundError, match=r"'broken' of llmtrace-broken is broken: it lacks a runtime"):
        choose("broken:model.gguf", found=installed(NATIVE, broken=["broken"]))


def raising(*args):
    raise RuntimeError("0x3")


@pytest.mark.parametrize(
    ("call", "wrong", "words"),
    [
        ("open", raising, "failed in open: RuntimeError: 0x3"),
        ("open", lambda source, options: sys.exit(3), "failed in open: SystemExit: 3"),
        ("open", lambda source, options: None, "returned None instead of a session"),
        ("preset", raising, "failed in preset: RuntimeError: 0x3"),
        ("preset", lambda preset: {"threads": 1}, "returned dict, which is not its options"),
    ],
)
def test_what_a_backend_raises_untyped_names_it_and_the_call(file, monkeypatch, call, wrong, words):
    ill = backend("ill", "native")
    setattr(ill, call, staticmethod(wrong))
    monkeypatch.setattr(opening, "plugins", lambda: installed(ill))
    with pytest.raises(BackendError, match=f"backend ill .*{words}"):
        llmtrace.open(file)


def test_a_typed_error_of_a_backend_is_passed_on_as_it_was(file, monkeypatch):
    error = ModelOpenError("cut off")

    def refuse(source, options):
        raise error

    ill = backend("ill", "native")
    ill.open = staticmethod(refuse)
    monkeypatch.setattr(opening, "plugins", lambda: installed(ill))
    with pytest.raises(ModelOpenError) as caught:
        llmtrace.open(file)
    assert caught.value is error


def test_a_session_that_cannot_be_closed_does_not_hide_why_it_is_closed(file, monkeypatch):
    session = Moved(equations(SPECS["sequential"]))
    session.info = attrs.evolve(session.info, backend="zeta")
    session.close = raising
    moving = backend("zeta", "native")
    moving.open = classmethod(lambda cls, source, options: session)
    moving.capabilities = ()
    monkeypatch.setattr(opening, "plugins", lambda: installed(moving))
    with pytest.raises(SchemaViolationError, match="changes when it is observed"):
        llmtrace.open(file)
    with pytest.raises(BackendError, match="failed in close: RuntimeError: 0x3"):
        llmtrace.open(file, check=False).close()


def test_a_validator_s_error_is_one_sentence(monkeypatch):
    @attrs.frozen
    class Picky:
        dtype: str = attrs.field(default="float32", validator=attrs.validators.in_(("float32", "float64")))

    picky = backend("picky")
    picky.options, picky.preset = Picky, staticmethod(lambda preset: Picky())
    with pytest.raises(OptionError) as caught:
        settings(picky, "exact", {"dtype": "int4"})
    assert str(caught.value) == (
        "The backend picky refuses its options: 'dtype' must be in ('float32', 'float64') (got 'int4')"
    )


@pytest.mark.parametrize("source", ["./missing", "/no/such/dir", "model.gguf", "x" * 5000, "nul\0byte", ""])
def test_what_does_not_exist_is_said_in_one_sentence(source):
    with pytest.raises(ModelOpenError, match="There is no file or directory"):
        choose(source, found=installed(NATIVE))


@pytest.mark.parametrize("source", ["./missing", "/no/such/dir"])
def test_what_does_not_exist_is_said_before_a_named_backend_is_loaded(source):
    with pytest.raises(ModelOpenError, match="There is no file or directory"):
        choose(source, "zeta", installed(NATIVE))


def knowing(name, fit):
    """A backend that answers `fit` to an embedded model's name."""
    made = backend(name)
    made.probe = staticmethod(lambda source, path: fit if (source, path) == (DEMO_MODEL, None) else None)
    made.opened = []
    return made


@pytest.mark.parametrize("named", [{"source": DEMO_MODEL, "backend": "own"}, {"source": f"own:{DEMO_MODEL}"}])
def test_an_embedded_model_is_opened_by_its_name_where_the_backend_knows_it(monkeypatch, named):
    own = knowing("own", "converting")
    monkeypatch.setattr(opening, "plugins", lambda: installed(own))
    with llmtrace.open(**named):
        assert [source for source, _ in own.opened] == [DEMO_MODEL]


@pytest.mark.parametrize("fit", [None, "yes"])
def test_and_by_its_directory_where_not_and_keeps_the_name_that_is_good_everywhere(monkeypatch, fit):
    other = knowing("other", fit)
    monkeypatch.setattr(opening, "plugins", lambda: installed(other))
    with llmtrace.open(DEMO_MODEL, backend="other") as opened:
        assert [source for source, _ in other.opened] == [str(embedded("induction"))]
        assert opened.info.source == opened.trace([1, 2]).model.source == DEMO_MODEL


def test_an_embedded_model_that_there_is_not_is_told_near_names_by_a_named_backend_too(monkeypatch):
    monkeypatch.setattr(opening, "plugins", lambda: installed(knowing("other", None)))
    with pytest.raises(ModelOpenError, match="Did you mean induction"):
        llmtrace.open("builtin:inductoin", backend="other")


def test_a_file_of_an_embedded_model_s_name_is_that_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(DEMO_MODEL).write_bytes(b"x")
    other = knowing("other", None)
    monkeypatch.setattr(opening, "plugins", lambda: installed(other))
    with llmtrace.open(DEMO_MODEL, backend="other"):
        assert [source for source, _ in other.opened] == [DEMO_MODEL]


INSTALL = "needs the distribution"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, r"it lacks config\.json and \*\.safetensors, and holds no \.gguf or \.onnx file\.$"),
        ({"model.safetensors": b"x"}, r"it lacks config\.json, and holds no \.gguf"),
        ({"config.json": b"{}"}, r"it lacks \*\.safetensors, and holds no \.gguf"),
        (
            {"a.gguf": b"GGUF", "b.gguf": b"GGUF"},
            r"it lacks config\.json and \*\.safetensors\. It holds a\.gguf: name that",
        ),
    ],
)
def test_a_directory_that_is_no_model_is_told_what_it_lacks_and_to_install_nothing(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelOpenError, match=rf"is no model that alpha, zeta open: {words}") as caught:
        choose(str(tmp_path), found=installed(NATIVE, REFERENCE))
    assert INSTALL not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.gguf", b"", "it is empty: fetch it again"),
        ("a.gguf", b"html", "it does not begin as a GGUF file: fetch it again"),
        ("a.onnx", b"version https://git-lfs.github.com/spec/v1", "it is a pointer of Git LFS, .*: git lfs pull"),
        ("a.safetensors", b"x", "it is one file of a model: name the directory that it lies in, with its config"),
        (
            "pytorch_model.bin",
            b"x",
            "it is a pickle, which can run code, so it is not opened: convert it to safetensors",
        ),
        ("a.trace", b"x", "it is a saved trace: `llmtrace view` and `llmtrace verify` read it, and `llmtrace.load`"),
    ],
)
def test_a_file_that_is_no_model_is_told_why_and_to_install_nothing(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelOpenError, match=rf"{name}' is no model that alpha, zeta open: {words}") as caught:
        choose(str(tmp_path / name), found=installed(NATIVE, REFERENCE))
    assert INSTALL not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("a.gguf", "llmtrace-torch or llmtrace-llamacpp"), ("a.onnx", "llmtrace-onnxruntime")]
)
def test_a_model_whose_runtime_is_not_installed_is_told_which_one_is(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"GGUF and more")
    with pytest.raises(
        BackendNotFoundError, match=rf"opens .*{name}'; installed are alpha, zeta\. .*{INSTALL} {words}"
    ):
        choose(str(tmp_path / name), found=installed(NATIVE, REFERENCE))


def test_a_graph_that_is_none_is_not_met_with_advice_to_install_what_is_there(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"<html>")
    with pytest.raises(ModelOpenError, match="it does not begin as an ONNX model: fetch it again") as caught:
        choose(str(tmp_path / "a.onnx"), found=installed(NATIVE, backend("onnxruntime", "native")))
    assert INSTALL not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
@pytest.mark.parametrize("backend", [None, "zeta"])
def test_a_pipe_is_not_waited_for(tmp_path, backend):
    os.mkfifo(tmp_path / "a.onnx")
    with pytest.raises(ModelOpenError, match="neither a file nor a directory"):
        choose(str(tmp_path / "a.onnx"), backend, found=installed(NATIVE, REFERENCE))


def test_a_file_of_a_kind_that_nobody_knows_is_told_which_kinds_are_known(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(
        BackendNotFoundError, match=r"a\.txt'; installed are alpha, zeta\. Models are .*\.gguf and \.onnx"
    ) as caught:
        choose(str(tmp_path / "a.txt"), found=installed(NATIVE, REFERENCE))
    assert INSTALL not in str(caught.value)


def test_a_checkpoint_that_is_whole_and_that_nobody_opens_is_said_with_what_is_installed(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BackendNotFoundError, match=r"installed are alpha, zeta\.$"):
        choose(str(tmp_path), found=installed(NATIVE, REFERENCE))


def test_options_stand_above_the_preset():
    assert settings(NATIVE, "exact", {}).threads == 1
    assert settings(NATIVE, "shipped", {}).threads == 4
    assert settings(NATIVE, "shipped", {"threads": 2}) == FakeOptions(threads=2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ({"threads": "8"}, FakeOptions(threads=8)),
        ({"flash": "on"}, FakeOptions(flash=True)),
        ({"flash": "False"}, FakeOptions(flash=False)),
        ({"cache": "q8_0"}, FakeOptions(cache="q8_0")),
        ({"cache": "none"}, FakeOptions(cache="none")),
        ({"limit": "1e-3"}, FakeOptions(limit=1e-3)),
        ({"limit": 1}, FakeOptions(limit=1.0)),
        ({"seed": "7"}, FakeOptions(seed=7)),
        ({"seed": "none"}, FakeOptions(seed=None)),
        ({"seed": None}, FakeOptions(seed=None)),
        ({"device": "cuda"}, FakeOptions(device="cuda")),
        ({"device": "none"}, FakeOptions(device=None)),
    ],
)
def test_text_is_read_as_the_type_that_is_declared(text, value):
    assert settings(NATIVE, "exact", text) == attrs.evolve(value, threads=value.threads)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"treads": 2}, r"no option 'treads'; it has cache, .*Did you mean threads"),
        ({"threads": "many"}, "threads='many' of the backend zeta must be a whole number"),
        ({"threads": 1.5}, "must be a whole number"),
        ({"threads": True}, "must be a whole number"),
        ({"flash": "maybe"}, "must be true or false"),
        ({"flash": 1}, "must be true or false"),
        ({"cache": 5}, "must be a text"),
        ({"seed": "x"}, "must be a whole number or none"),
        ({"limit": None}, "must be a number"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_that_names_it(options, words):
    with pytest.raises(OptionError, match=words):
        settings(NATIVE, "exact", options)


def test_a_preset_that_does_not_exist_is_an_error():
    with pytest.raises(OptionError, match="'fast'; there are exact and shipped"):
        settings(NATIVE, "fast", {})


@pytest.mark.parametrize(
    "options", [FakeOptions(), FakeOptions(8, True, "q8_0", 0.1, 3, "cuda"), FakeOptions(limit=1 / 3)]
)
def test_options_as_text_are_the_same_options_again(options):
    assert settings(NATIVE, "shipped", as_text(options)) == options


def test_a_model_is_opened_again_from_what_its_trace_says(file, monkeypatch):
    monkeypatch.setattr(opening, "plugins", lambda: installed(NATIVE, REFERENCE))
    with llmtrace.open(file, preset="exact", options={"limit": 0.25, "device": "cpu"}) as opened:
        trace = opened.trace([1, 2, 3])
    info = trace.model
    assert (info.preset, info.options["limit"], info.options["seed"]) == ("exact", "0.25", "none")
    NATIVE.opened.clear()
    with llmtrace.open(file, backend="zeta", preset=info.preset, options=info.options) as again:
        repeated = again.trace(trace.ids, capture=trace.selection)
    assert NATIVE.opened == [(file, FakeOptions(threads=1, limit=0.25, device="cpu"))]
    assert again.info == info
    for site in trace:
        np.testing.assert_array_equal(repeated[site].array, trace[site].array)


class Moved(FakeSession):
    """Logits that depend on what is asked for."""

    by = 1e-3

    def hand_over(self, site, array, observer):
        if site == "logits" and len(self.runs[-1].cuts) > 1:
            array = array * (1 + self.by)
        observer.signal(site, array)


def test_a_model_that_changes_when_it_is_observed_is_refused():
    with pytest.raises(
        SchemaViolationError, match=r"changes when it is observed.*1\.0e-03.*states 0e\+00.*check=False"
    ):
        check_neutral(Moved(equations(SPECS["sequential"])))


def test_a_change_within_what_the_backend_states_is_accepted():
    check_neutral(Moved(equations(SPECS["sequential"]), tolerance=2e-3))


def test_logits_that_turn_into_nan_are_a_change_and_nan_that_stays_is_none():
    class Broken(Moved):
        by = np.nan

    class Same(FakeSession):
        def hand_over(self, site, array, observer):
            observer.signal(site, array * np.nan if site == "logits" else array)

    with pytest.raises(SchemaViolationError):
        check_neutral(Broken(equations(SPECS["sequential"]), tolerance=1.0))
    check_neutral(Same(equations(SPECS["sequential"])))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_check_works_in_every_type(dtype):
    assert ml_dtypes.bfloat16
    check_neutral(FakeSession(equations(SPECS["sequential"]), dtype=dtype))
    with pytest.raises(SchemaViolationError):

        class MovedFar(Moved):
            def hand_over(self, site, array, observer):
                if site == "logits" and len(self.runs[-1].cuts) > 1:
                    array = (array * 2).astype(array.dtype)
                observer.signal(site, array)

        check_neutral(MovedFar(equations(SPECS["sequential"]), dtype=dtype))


def test_a_model_with_a_short_context_and_a_small_vocabulary_is_probed_within_them():
    session = FakeSession(equations(model(sequential(), context=2)))
    check_neutral(session)
    assert {len(run.tokens) for run in session.runs} == {2}


class Chunked(FakeSession):
    """A runtime that runs 16 tokens at a time and, when it is tapped, forgets the first chunk when it begins the second."""

    def hand_over(self, site, array, observer):
        if site == "logits" and len(self.runs[-1].cuts) > 1 and len(array) > 16:
            array = np.concatenate([array[:16], 2 * array[16:]])
        observer.signal(site, array)


def test_what_goes_wrong_in_a_runtime_s_second_chunk_is_seen():
    with pytest.raises(SchemaViolationError, match="changes when it is observed"):
        check_neutral(Chunked(equations(SPECS["sequential"])))


class Many(FakeSession):
    """Runs prompts together, as `mix` does it."""

    def run_many(self, requests, observers):
        self.lengths = [len(request.tokens) for request in requests]
        for request, observer in zip(requests, observers, strict=True):
            self.together = True
            self.run(request, observer)
            self.together = False

    together = False

    def hand_over(self, site, array, observer):
        observer.signal(site, self.mix(site, array) if self.together else array)

    def mix(self, site, array):
        return array


class Leaking(Many):
    """Mixes a little of what stands beside it into the shorter prompt."""

    by = 0.01

    def mix(self, site, array):
        return (array * (1 + self.by)).astype(array.dtype) if len(array) < max(self.lengths) else array


class Swapping(Many):
    """Hands the rows of a prompt over in another order."""

    def mix(self, site, array):
        return array[::-1].copy()


class Rounding(Many):
    """Other shapes take other kernels."""

    by = 5e-7

    def mix(self, site, array):
        return (array * (1 + self.by)).astype(array.dtype)


def test_prompts_of_unlike_lengths_are_run_together_where_a_session_can():
    for kind in (Many, Rounding):
        session = kind(equations(SPECS["sequential"]), dtype="float32")
        check_neutral(session)
        assert session.lengths == [5, 12], "more than a chunk of 16 together, and one of them padded"


@pytest.mark.parametrize("kind", [Leaking, Swapping])
def test_a_session_whose_prompts_know_of_each_other_is_refused(kind):
    with pytest.raises(SchemaViolationError, match=r"another runs beside it.*moves? by .*lets padding leak"):
        check_neutral(kind(equations(SPECS["sequential"])))


def one_walk(session):
    return walk(session, session.model, 17)


def test_a_walk_is_the_root_of_all_squared_round_offs():
    """By hand: the steps of a model without blocks are an embedding, a norm of three sites, and logits that sum d_model products."""
    session = FakeSession(equations(model()), dtype="float32")
    assert list(session.model.steps) == ["embed", "ln_final.scale", "ln_final.normalized", "ln_final.out", "logits"]
    u, width = 2.0**-24, session.spec.d_model
    summed = sum(width if step.equation.sums else 1 for step in session.model.steps.values())
    assert session.model.steps["logits"].equation.sums == ("d_model",)
    assert one_walk(session) == pytest.approx(u * np.sqrt(5 + summed), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_padding_that_leaks_by_more_than_one_walk_is_refused_and_less_is_rounding(dtype):
    session = Leaking(equations(SPECS["sequential"]), dtype=dtype)
    session.by = 0.5 * one_walk(session)
    check_neutral(session)
    session.by = 2 * one_walk(session)
    assert session.by < {"float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    with pytest.raises(SchemaViolationError, match=r"another runs beside it.*lets padding leak"):
        check_neutral(session)


def test_what_other_kernels_explain_is_no_leak_as_long_as_the_prompts_move_alike():
    session = Rounding(equations(SPECS["sequential"]), dtype="float32")
    session.by = 0.8 * WALKS * one_walk(session)
    check_neutral(session)
    session.by = 1.2 * WALKS * one_walk(session)
    with pytest.raises(SchemaViolationError, match="another runs beside it"):
        check_neutral(session)


def test_a_padded_prompt_may_move_as_what_is_not_padded_does():
    """A runtime that runs them one after the other gives each its own rounding."""

    class Apart(Many):
        def mix(self, site, array):
            return (array * (1 + (-2 if len(array) < max(self.lengths) else 1) * one_walk(self))).astype(array.dtype)

    check_neutral(Apart(equations(SPECS["sequential"]), dtype="float32"))


def test_a_session_that_hands_over_no_logits_is_refused():
    class Mute(FakeSession):
        def hand_over(self, site, array, observer):
            if site != "logits":
                observer.signal(site, array)

    with pytest.raises(SchemaViolationError, match="did not hand over logits"):
        check_neutral(Mute(equations(SPECS["sequential"])))


def test_an_opaque_branch_that_is_replayed_is_given_zeros():
    class Replaying(FakeSession):
        replayable = ("blocks.0.mixer_out",)

        def run(self, request, observer):
            assert isinstance(request.replay, Mapping)
            assert not request.replay["blocks.0.mixer_out"].any()
            super().run(request, observer)

    check_neutral(Replaying(equations(SPECS["mixer"])))


def test_a_model_that_is_refused_is_closed(file, monkeypatch):
    session = Moved(equations(SPECS["sequential"]))
    moving = backend("fake", "native")
    moving.capabilities = ()
    moving.open = classmethod(lambda cls, source, options: session)
    monkeypatch.setattr(opening, "plugins", lambda: installed(moving))
    with pytest.raises(SchemaViolationError):
        llmtrace.open(file)
    assert session.closed == 1
    with llmtrace.open(file, check=False) as opened:
        assert opened.info.backend == "fake"
    assert session.closed == 2


def test_what_is_traced_does_not_depend_on_the_check():
    built = equations(SPECS["sequential"])
    session = FakeSession(built)
    check_neutral(session)
    np.testing.assert_array_equal(
        llmtrace.Model(session).trace([1, 2])["logits"].array, capture(built, [1, 2])["logits"]
    )
