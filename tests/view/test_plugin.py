"""The viewers that the core brings."""

from llmtrace.plugins import plugins
from llmtrace.view.html import page
from llmtrace.view.text import plain


def test_both_viewers_are_found_by_name():
    assert {"html", "text"} <= set(plugins().viewers)
    assert plugins().viewer("html").suffix == ".html"
    assert plugins().viewer("text").suffix == ".txt"


def test_a_viewer_renders_records(influence, lens):
    assert plugins().viewer("html").render([influence], lens) == page([influence.to_json()], lens.to_json())
    assert plugins().viewer("text").render([influence], lens) == plain([influence], lens)
