"""The page as a file: it parses, it names no address, and hostile tokens stay text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtrace.errors import OptionError, TraceFileError
from llmtrace.view.html import assets, embed, fragment, page, save_page
from tests.view import documents

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Reader(HTMLParser):
    """Elements, their attributes and their text; complains of what does not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        self.text[where] = self.text.get(where, "") + data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def content(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


HOSTILE = page([documents.influence(documents.HOSTILE)], documents.lens(documents.HOSTILE), title="</title><b>&")


@pytest.mark.parametrize("html", [page([documents.influence()], documents.lens()), HOSTILE])
def test_the_page_nests_and_holds_what_it_should(html):
    tags = [tag for tag, _ in read(html).elements]
    assert tags[:2] == ["html", "head"]
    assert tags.count("script") == 2
    assert tags.count("main") == 1
    assert not {"img", "b", "link", "iframe", "object", "base"} & set(tags)


@pytest.mark.parametrize("html", [page([documents.influence()], documents.lens()), HOSTILE])
def test_no_address_is_named(html):
    assert not {"src", "href", "srcset", "action", "data"} & {
        name for _, attributes in read(html).elements for name in attributes
    }
    script, style = assets()
    for word in ("http:", "https:", "//cdn", "url(", "@import"):
        assert word not in style + script.replace("http://www.w3.org/2000/svg", ""), word


def test_the_policy_admits_this_script_and_this_style_only():
    reader = read(page([documents.influence()]))
    policy = next(a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = {kind: re.search(rf"{kind}-src '(sha256-[^']+)'", policy)[1] for kind in ("script", "style")}
    html = page([documents.influence()])
    inside = {
        "script": re.findall(r"<script>(.*?)</script>", html, re.DOTALL),
        "style": re.findall(r"<style>(.*?)</style>", html, re.DOTALL),
    }
    for kind, (text,) in inside.items():
        assert digest[kind] == "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_script_never_makes_markup_of_text():
    script, _ = assets()
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import(",
        "</",
    ):
        assert way not in script, way


def test_data_cannot_end_its_element():
    data = re.search(r'id="data">(.*?)</script>', HOSTILE, re.DOTALL)[1]
    assert not set(data) & set("<>&")
    assert data.isascii()
    assert any(token["text"].startswith('"</script><img') for token in content(HOSTILE)["documents"][0]["tokens"])


@given(
    st.recursive(st.text(st.characters(codec=None, exclude_categories=())), lambda inner: st.lists(inner, max_size=3))
)
def test_whatever_is_embedded_comes_back_and_is_inert(value):
    text = embed(value)
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == json.loads(json.dumps(value))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=12), min_size=1, max_size=6))
def test_no_token_changes_the_elements_of_the_page(texts):
    def elements(words):
        return [tag for tag, _ in read(page([documents.influence(words, layers=1)])).elements]

    assert elements(tuple(texts)) == elements(("a",) * len(texts))


def test_without_script_the_scores_stand_in_a_table():
    reader = read(page([documents.influence()], documents.lens()))
    assert '" France"' in reader.text["td"]
    assert f"{documents.influence()['scores'][3]:.5g}" in reader.text["td"]


def test_nothing_to_show_is_said():
    with pytest.raises(OptionError, match="nothing to show"):
        page([])


def test_a_lens_alone_is_a_page():
    assert content(page([], documents.lens()))["lens"]["points"]


def test_a_page_is_saved_whole(influence, lens, tmp_path):
    influence.save_html(tmp_path / "a.html")
    save_page(tmp_path / "b.html", [influence], lens)
    assert content((tmp_path / "a.html").read_text("utf-8"))["lens"] is None
    assert content((tmp_path / "b.html").read_text("utf-8"))["lens"]["points"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "b.html"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), OSError(13, "Permission denied")])
def test_an_old_page_survives_a_failure(influence, tmp_path, monkeypatch, fault):
    target = tmp_path / "a.html"
    target.write_text("old")

    def fail(*_):
        raise fault

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(TraceFileError, match=fault.strerror):
        influence.save_html(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_directory_is_named(influence, tmp_path):
    with pytest.raises(TraceFileError, match="there is no directory"):
        influence.save_html(tmp_path / "none" / "a.html")


def test_the_fragment_is_static_and_escaped(influence):
    from attrs import evolve

    hostile = [evolve(token, text=text) for token, text in zip(influence.tokens, documents.HOSTILE, strict=False)]
    html = fragment(evolve(influence, tokens=(*hostile, *influence.tokens[len(hostile) :])))
    reader = read(html)
    assert {tag for tag, _ in reader.elements} <= {"div", "span", "bdi"}
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert "\\x1b" in reader.text["bdi"]
    assert "\x1b" not in html
    assert influence._repr_html_().count("<bdi") == len(influence.tokens)
