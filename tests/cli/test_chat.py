"""`--chat` on every command that takes a prompt: the same prompt as in Python, and a stranger's template is never a traceback."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("jinja2")

import llmtrace

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ 'a' if m.role == 'system' else 'b' }} {{ m.content }}{% endfor %} c"
)


@pytest.fixture
def talker(checkpoint):
    """The embedded model, with a chat template made of its letters."""

    def made(template=TEMPLATE):
        file = checkpoint / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
        return checkpoint

    return made


def texts(run):
    return [token["text"] for token in run.document["tokens"]]


@pytest.mark.parametrize("command", ["influence", "lens", "trace", "verify", "view"])
def test_every_command_writes_the_prompt_out_once_begun(cli, talker, command):
    run = cli(command, f"reference:{talker()}", "f e", "--chat", "--system", "d", "--json")
    assert run.code == 0
    assert texts(run) == ["<bos>", "a", "d", "b", "f", "e", "c"]


def test_it_is_the_prompt_of_the_python_call(cli, talker):
    run = cli("trace", f"reference:{talker()}", "f e", "--chat", "--json")
    with llmtrace.open(talker(), backend="reference") as model:
        assert [token["id"] for token in run.document["tokens"]] == list(model.chat("f e"))
        trace = model.trace(model.chat([{"role": "user", "content": "f e"}]), capture="logits")
        assert [token.text for token in trace.tokens] == texts(run)


def test_without_it_a_text_is_what_it_is(cli, talker):
    assert texts(cli("trace", f"reference:{talker()}", "f e", "--json")) == ["<bos>", "f", "e"]


def test_a_prompt_from_a_file_is_written_out_too(cli, talker):
    run = cli("trace", f"reference:{talker()}", "--prompt-file", "-", "--chat", "--json", input="f e\n")
    assert texts(run) == ["<bos>", "b", "f", "e", "c"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("f", "--system", "d"), "--system goes with --chat"),
        (("--tokens", "1,2", "--chat"), "--tokens are ids already"),
        (("--chat",), "A prompt is missing"),
    ],
)
@pytest.mark.parametrize("command", ["trace", "verify"])
def test_what_makes_no_sense_is_refused(cli, talker, command, arguments, words):
    assert words in cli(command, f"reference:{talker()}", *arguments).error


def test_a_saved_trace_is_not_written_out(cli, talker):
    cli("trace", f"reference:{talker()}", "f", "--save", "x.trace")
    assert "has its own prompt" in cli("verify", "x.trace", "--chat").error


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "This model has no chat template"),
        ("{% for", "tokenizer_config.json cannot be used: "),
        ("{{ ().__class__.__mro__ }}", "does what no template may, and was stopped"),
        ("{{ raise_exception('never') }}", "does not take these messages: never"),
        ("{{ messages.x.y }}", "uses what is not there"),
        ("z", "The word 'z' is not in the vocabulary"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(cli, talker, template, words):
    assert words in cli("trace", f"reference:{talker(template)}", "f", "--chat").error


def test_a_date_in_the_prompt_is_said(cli, talker):
    dated = cli("trace", f"reference:{talker('a {{ strftime_now(chr) if chr is defined }}')}", "f", "--chat", "--json")
    assert "SOURCE_DATE_EPOCH" not in dated.err
    template = "{{ 'a' if strftime_now('%Y') == '2001' else 'b' }}"
    dated = cli("trace", f"reference:{talker(template)}", "f", "--chat", "--json")
    assert texts(dated) == ["b"] and "writes today's date" in dated.err
    dated = cli(
        "trace", f"reference:{talker(template)}", "f", "--chat", "--json", env={"SOURCE_DATE_EPOCH": "1000000000"}
    )
    assert texts(dated) == ["a"]
