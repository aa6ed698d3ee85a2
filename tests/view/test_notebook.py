"""In a notebook traces and signals are small tables, and nothing in them is markup."""

from html.parser import HTMLParser

import numpy as np
from attrs import evolve

import llmtrace
from llmtrace.trace import Provenance
from llmtrace.view import notebook

PROMPT = "c a f e c a"


class Reader(HTMLParser):
    """The elements and the text of a fragment; every element is closed, in order."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(markup)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


def recorded(**cuts):
    with llmtrace.open("builtin:induction") as model:
        return model.trace(PROMPT, capture=llmtrace.select("**", **cuts))


def test_a_trace_is_a_table_of_what_it_holds_with_alike_layers_together():
    trace = recorded()
    read = Reader(trace._repr_html_())
    assert set(read.tags) == {"div", "table", "tr", "th", "td"}
    assert repr(trace).strip("<>") in read.text
    assert "blocks.{0..1}.attn.pattern\nhead=2 query=7 key=7\nfloat64\ncaptured\nfloat64\n1,568\n" in read.text


def test_a_signal_is_a_table_of_one_row_and_says_what_of_the_whole_it_is():
    read = Reader(recorded(heads=[1])["blocks.1.attn.q"]._repr_html_())
    assert read.tags.count("tr") == 2
    assert "in part: heads 1" in read.text and "blocks.1.attn.q" in read.text


def test_texts_from_files_are_text():
    trace = recorded()
    evil = Provenance("converted", "<script>alert(1)</script>\x1b")
    signals = {site: evolve(signal, provenance=evil) for site, signal in trace.signals.items()}
    trace = evolve(trace, model=evolve(trace.model, source="<img src=x onerror=alert(1)>\u202e"), signals=signals)
    for markup in (trace._repr_html_(), trace["embed"]._repr_html_()):
        assert not {"script", "img"} & set(Reader(markup).tags)
        assert "\x1b" not in markup and "\u202e" not in markup


def test_long_lists_and_long_cells_are_shortened():
    trace = recorded()
    signals = {
        site: evolve(signal, array=np.zeros(place), axes=("token",), provenance=Provenance("converted", "x" * 500))
        for place, (site, signal) in enumerate(trace.signals.items())
    }
    markup = evolve(trace, signals=signals)._repr_html_()
    rows = Reader(markup).tags.count("tr") - 1
    assert rows == notebook.SHOWN < len(signals)
    assert f"… {len(signals) - rows + 1} more rows" in markup
    assert "x" * 200 not in Reader(markup).text


def test_an_edited_trace_says_so():
    with llmtrace.open("builtin:induction") as model:
        edited = model.trace("a b", edits=[llmtrace.ablate("blocks.0.attn.z_post", heads=[1])])
    assert "; edited: zero(blocks.0.attn.z_post, heads=1)" in repr(edited)
    assert "edited: zero(blocks.0.attn.z_post, heads=1)" in Reader(edited._repr_html_()).text
