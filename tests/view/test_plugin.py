"""The viewers that the core brings."""

import pytest

from llmtrace.plugins import plugins
from llmtrace.testing import check_viewer
from llmtrace.view.html import page
from llmtrace.view.plugin import llmtrace_viewers
from llmtrace.view.text import plain


def test_both_viewers_are_found_by_name():
    assert {"html", "text"} <= set(plugins().viewers)
    assert plugins().viewer("html").suffix == ".html"
    assert plugins().viewer("text").suffix == ".txt"


@pytest.mark.parametrize("viewer", llmtrace_viewers(), ids=lambda viewer: viewer.name)
def test_every_viewer_passes_the_check_that_strangers_are_given(viewer):
    check_viewer(viewer)


def test_a_viewer_renders_records(influence, lens):
    assert plugins().viewer("html").render([influence], lens) == page([influence.to_json()], lens.to_json())
    assert plugins().viewer("text").render([influence], lens) == plain([influence], lens)
