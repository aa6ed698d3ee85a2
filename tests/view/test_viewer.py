"""What a stranger's viewer does wrong is told as its own fault: which viewer, of which distribution, and what it did."""

from __future__ import annotations

import attrs
import pytest

from llmtrace.errors import OptionError, PluginError
from llmtrace.plugins import plugins
from llmtrace.view.viewer import rendered


def rendering(answer):
    return type("Mine", (), {"name": "mine", "suffix": ".x", "render": staticmethod(answer)})


@pytest.fixture
def show(influence, lens, monkeypatch):
    """Renders by one viewer as if `llmtrace-ill` had brought it."""

    def run(answer):
        real = plugins()
        found = attrs.evolve(real, origins={**real.origins, ("viewer", "mine"): "llmtrace-ill"})
        monkeypatch.setattr("llmtrace.plugins.plugins", lambda: found)
        return rendered(rendering(answer), [influence], lens)

    return run


@pytest.mark.parametrize("answer", ["é", "é".encode()])
def test_text_and_bytes_are_the_file(show, answer):
    assert show(lambda influences, lens=None: answer) == "é".encode()


def fails(influences, lens=None):
    return 1 / 0


def leaves(influences, lens=None):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (fails, "failed in render: ZeroDivisionError"),
        (leaves, "failed in render: SystemExit"),
        (lambda influences: "", "failed in render: TypeError"),
        (lambda influences, lens=None: None, "returned NoneType.*text or bytes"),
        (lambda influences, lens=None: ["x"], "returned list.*text or bytes"),
        (lambda influences, lens=None: "\ud800", "returned text that is no Unicode"),
    ],
)
def test_what_a_viewer_does_wrong_names_it_its_distribution_and_what_it_did(show, answer, words):
    with pytest.raises(PluginError, match=rf"The viewer mine of llmtrace-ill .*{words}"):
        show(answer)


def test_an_error_that_is_one_of_ours_passes_as_it_is(show):
    def nothing(influences, lens=None):
        raise OptionError("There is nothing to show.")

    with pytest.raises(OptionError, match=r"^There is nothing to show\.$"):
        show(nothing)
