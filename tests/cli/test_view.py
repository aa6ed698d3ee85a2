"""`llmtrace view` writes the page of a trace and prints where it is."""

from __future__ import annotations

from llmtrace.cli.view import default_page

MODEL = "builtin:induction"
PROMPT = "c a f e b o d c a f"


def test_the_page_of_a_model_and_a_prompt_is_written_and_named(cli, validate, tmp_path):
    run = cli("view", MODEL, PROMPT)
    assert (run.code, run.out) == (0, "builtin-induction.trace.html\n")
    assert '"kind":"trace"' in (tmp_path / "builtin-induction.trace.html").read_text(encoding="utf-8")
    document = cli("view", MODEL, PROMPT, "--html", "x.html", "--json").document
    validate("view", document)
    assert document["page"] == "x.html"
    assert (tmp_path / "x.html").read_bytes() == (tmp_path / "builtin-induction.trace.html").read_bytes()


def test_the_page_of_a_saved_trace_is_that_of_the_run(cli, tmp_path):
    cli("trace", MODEL, PROMPT, "--save", "saved.trace")
    assert cli("view", "saved.trace").out == "saved.trace.html\n"
    cli("view", MODEL, PROMPT, "--html", "fresh.html")
    assert (tmp_path / "saved.trace.html").read_text() == (tmp_path / "fresh.html").read_text()


def test_a_page_that_was_not_named_takes_no_other_page_s_place(cli, tmp_path):
    (tmp_path / "index.html").write_text("a site", encoding="utf-8")
    cli("trace", MODEL, PROMPT, "--save", "index.trace")
    assert cli("view", "index.trace").out == "index.trace.html\n"
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "a site"
    assert [default_page(source) for source in ("a/model.gguf", "dir/", "org/name", "X.TRACE")] == [
        "model.gguf.trace.html", "dir.trace.html", "name.trace.html", "X.TRACE.trace.html"
    ]  # fmt: skip


def test_a_saved_trace_is_told_by_its_name_in_any_case_and_a_directory_is_none(cli, checkpoint):
    cli("trace", MODEL, PROMPT, "--save", "X.TRACE")
    assert cli("view", "X.TRACE", "-q").code == 0
    assert cli("verify", "X.TRACE", "-q").code == 0
    named = checkpoint.rename(checkpoint.with_name("model.trace"))
    assert cli("verify", named, PROMPT, "--backend", "reference", "-q").code == 0


def test_a_browser_is_opened_only_where_it_is_asked_for(cli, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("click.launch", opened.append)
    cli("view", MODEL, PROMPT, "--html", "x.html")
    assert opened == []
    cli("view", MODEL, PROMPT, "--html", "x.html", "--open")
    assert opened == [(tmp_path / "x.html").as_uri()]


def test_what_is_no_trace_is_one_line_and_writes_nothing(cli, tmp_path):
    (tmp_path / "x.trace").write_bytes(b"not a trace at all")
    assert "x.trace" in cli("view", "x.trace").error
    assert "nowhere.trace" in cli("view", "nowhere.trace").error
    assert not list(tmp_path.glob("*.html"))
    cli("trace", MODEL, PROMPT, "--save", "y.trace")
    assert "its own prompt" in cli("view", "y.trace", PROMPT).error
