"""What one session took serves the next, and how much a call holds is the user's choice."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("llmtrace_onnxruntime")

import llmtrace
from llmtrace.errors import OptionError
from llmtrace_onnxruntime import sessions
from llmtrace_onnxruntime.options import OnnxRuntimeOptions
from llmtrace_onnxruntime.proto import load
from tests.backends.onnxruntime.opening import write
from tests.backends.onnxruntime.test_writing_features import FEATURES
from tests.backends.onnxruntime.written import TOKENS, drawn


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(drawn(FEATURES["nothing else"]), tmp_path_factory.mktemp("arena"))


@pytest.mark.parametrize("there", [True, False])
def test_sessions_take_memory_from_the_process_where_it_can_be_had(path, there, monkeypatch):
    monkeypatch.setattr(sessions, "share", lambda: there)
    settings = sessions.session_options(OnnxRuntimeOptions(), load(str(path), OnnxRuntimeOptions()))
    entry = "session.use_env_allocators"
    if there:
        assert settings.get_session_config_entry(entry) == "1"
    else:
        with pytest.raises(RuntimeError):
            settings.get_session_config_entry(entry)


def test_it_can_be_had_here():
    assert sessions.share()


def test_how_much_a_call_holds_is_an_option_and_stands_in_the_record(path):
    with llmtrace.open(path, backend="onnxruntime", options={"held": "1"}) as model:
        assert model.session._held == 1 << 20
        assert model.trace(list(TOKENS)).model.options["held"] == "1"


@pytest.mark.parametrize("held", ["0", "-1", "much", str(1 << 21)])
def test_what_it_cannot_be_is_refused(path, held):
    with pytest.raises(OptionError, match="held"):
        llmtrace.open(path, backend="onnxruntime", options={"held": held})
