"""A conversation becomes the prompt that transformers makes of it, by the model's own template, which is a stranger's code.

The oracle is transformers' `apply_chat_template`; what a template may not do is tried out.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from attrs import evolve

pytest.importorskip("jinja2")

from llmtrace.chat import Chat, ChatTemplate, chat, checked, process
from llmtrace.chat.process import render
from llmtrace.errors import CapabilityError, ChatTemplateError, PromptError, SchemaViolationError
from llmtrace.trace import Token
from tests.chat.templates import TEMPLATES

MARKS = {"bos_token": "<s>", "eos_token": "</s>"}
SAYS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "  <b>é & 'ü' 🙂\n\nnext  "}],
    [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two "},
        {"role": "user", "content": "Three"},
    ],
]
DAY = datetime(2024, 7, 26, 12, tzinfo=UTC)


def template(text, file="model.gguf", marks=MARKS):
    return ChatTemplate(text, file, marks)


class Bytes:
    """Ids are bytes; `special` adds a 1."""

    def __init__(self, chat_template):
        self.chat_template = chat_template

    def encode(self, text, *, special=True):
        return [1] * special + list(text.encode())

    def token(self, id):
        return Token(id, chr(id))


# -- what is written


def theirs(text, messages, **more):
    """What transformers writes."""
    transformers = pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    assert transformers
    rendered, _ = render_jinja_template([messages], chat_template=text, add_generation_prompt=True, **MARKS, **more)
    return rendered[0]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_template_writes_what_transformers_has_it_write(name, system):
    for messages in SAYS:
        said = checked(messages, system)
        if "refuses a system message" in TEMPLATES[name] and system:
            with pytest.raises(ChatTemplateError, match=r"does not take these messages: .*System role"):
                render(template(TEMPLATES[name]), said)
            continue
        written, _ = render(template(TEMPLATES[name]), said)
        assert written == theirs(TEMPLATES[name], said)
        assert str(messages[0]["content"]).strip() in written


@pytest.mark.parametrize(
    "text",
    [
        "{% generation %}{% set x = 1 %}a{% endgeneration %}{{ x }}",
        "{%- for m in messages %}\n  {%- if loop.index > 1 %}{% break %}{% endif %}\n{{ m.content }}\n{%- endfor %}",
        "  {% if true %}\nx\n  {% endif %}\ny",
        "{{ {'b': '<é>', 'a': [1, none]} | tojson }}{{ {'b': 1} | tojson(indent=2) }}",
        "{% set ns = namespace(a=1, self=2) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ dict(a=1) }}",
        "{{ tools is none }}{{ documents }}{{ nothing }}{{ unk_token is defined }}{{ bos_token }}",
        "{{ messages[0]['content'].split('H')[-1].strip() | upper }}{{ range(3) | list }}",
    ],
)
def test_what_a_template_may_use_is_what_transformers_gives_it(text):
    assert render(template(text), SAYS[0])[0] == theirs(text, SAYS[0])


def test_the_date_is_today_unless_it_is_said(monkeypatch):
    text = "{{ strftime_now('%d %b %Y') }}"
    assert render(template(text), SAYS[0], DAY) == ("26 Jul 2024", True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(DAY.timestamp())))
    assert render(template(text), SAYS[0])[0] == "26 Jul 2024"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    days = {render(template(text), SAYS[0])[0], theirs(text, SAYS[0])}
    assert len(days) == 1 or datetime.now(UTC).hour in (0, 23), days
    assert render(template("{{ 1 if strftime_now is defined }}"), SAYS[0]) == ("1", False)


def test_a_day_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(PromptError, match="SOURCE_DATE_EPOCH is tomorrow"):
        render(template("x"), SAYS[0])


# -- the prompt


def test_what_the_template_wrote_is_the_whole_prompt_and_begins_once():
    found = chat(Bytes(template("{{ bos_token }}{{ messages[0].content }}")), "Hi")
    assert found == Chat("<s>Hi", tuple(b"<s>Hi"), dated=False)


def test_a_system_message_stands_first():
    found = chat(
        Bytes(template("{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}")), "Hi", system="Be brief"
    )
    assert found.text == "system: Be brief. user: Hi. "


@pytest.mark.parametrize("tokenizer", [None, Bytes(None), Bytes(template("x")).encode])
def test_without_a_template_there_is_no_chat(tokenizer):
    with pytest.raises(ChatTemplateError, match=r"has no chat template: .* without chat"):
        chat(tokenizer, "Hi")


def test_a_template_that_is_none_is_the_backends_fault():
    with pytest.raises(SchemaViolationError, match=r"Bytes has '\{\{ x \}\}' as its chat_template"):
        chat(Bytes("{{ x }}"), "Hi")


@pytest.mark.parametrize(
    ("messages", "system", "words"),
    [
        ([], None, r"not \[\]"),
        (7, None, "not 7"),
        (["Hi"], None, "Message 0 of the chat is 'Hi': it needs a role"),
        ([{"role": "user"}], None, "needs a role and a content"),
        ([{"role": "user", "content": None}], None, "needs a role and a content"),
        ([{"role": 3, "content": "Hi"}], None, "needs a role"),
        ([{"role": "user", "content": object()}], None, "holds <object"),
        ([{"role": "user", "content": "\ud800"}], None, "Message 0 of the chat is not valid Unicode"),
        ("Hi", "\ud800", "The system message of the chat is not valid Unicode"),
        ([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], "c", "leave one out"),
    ],
)
def test_what_are_no_messages_is_said(messages, system, words):
    with pytest.raises(PromptError, match=words):
        checked(messages, system)


def test_keys_without_a_value_are_left_out_as_in_transformers():
    assert checked([{"role": "user", "content": "Hi", "name": None, "parts": [{"a": None}]}]) == [
        {"role": "user", "content": "Hi", "parts": [{"a": None}]}
    ]


# -- what a template may not do


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ ().__class__.__mro__[1].__subclasses__() }}", "does what no template may.*__class__"),
        ("{{ ''.__class__ }}", "Do not trust that file"),
        ("{{ ('x' | attr('format')).__globals__ }}", "does what no template may"),
        ("{{ '{0.__class__}'.format(messages) }}", "does what no template may"),
        ("{{ messages.append(1) }}", "does what no template may"),
        ("{{ messages[0].update({'content': 'x'}) }}", "does what no template may"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "does what no template may|cannot be used"),
        ("{{ namespace(__init__=1) }}", "does what no template may"),
        ("{{ namespace.__init__.__globals__ }}", "does what no template may"),
        ("{{ raise_exception.__globals__ }}", "does what no template may"),
        ("{{ strftime_now.__closure__ }}", "does what no template may"),
        ("{{ dict.__class__ }}", "does what no template may"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "does what no template may"),
        ("{{ self._TemplateReference__context }}", "does what no template may|uses what is not there"),
        ("{% include '/etc/passwd' %}", "cannot be used: .*no loader"),
        ("{% import '/etc/passwd' as x %}", "cannot be used: .*no loader"),
        ("{{ open('/etc/passwd').read() }}", "uses what is not there: .*'open' is undefined"),
        ("{{ __import__('os') }}", "uses what is not there"),
    ],
)
def test_a_template_reaches_neither_files_nor_pythons_insides(text, words):
    with pytest.raises(ChatTemplateError, match=rf"The chat template of model\.gguf.*({words})"):
        render(template(text), SAYS[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{% for m in messages %}", "cannot be used: .*line 1: Unexpected end of template"),
        ("{{ messages[0].content.nothing.more }}", "uses what is not there: .*has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "cannot be used: .*ZeroDivisionError"),
        ("{{ raise_exception('only \x1b[31mone') }}", r"does not take these messages: 'only \\x1b\[31mone'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot be used: .*RecursionError"),
        ("{% for i in range(99999) %}{{ '%1000d' % 1 }}{% endfor %}", "writes more than 16777216 characters"),
        ("{{ 'a' * 10 ** 10 }}", "more memory"),
        ("{{ '%9999999999d' % 1 }}", "more memory|cannot be used"),
        ("{{ range(10 ** 9) | list }}", "cannot be used: .*OverflowError"),
        ("{{ '\\ud800' }}", "cannot be used: UnicodeEncodeError|cannot be used: .*surrogates"),
    ],
)
def test_a_template_that_fails_says_whose_it_is_and_why(text, words):
    with pytest.raises(ChatTemplateError, match=rf"The chat template of model\.gguf.*({words})") as caught:
        render(template(text), SAYS[0])
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_template_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(process, "SECONDS", 1.0)
    started = time.perf_counter()
    with pytest.raises(ChatTemplateError, match="was stopped: it does not end"):
        render(template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"), SAYS[0])
    assert time.perf_counter() - started < 10


def test_a_template_runs_in_another_process_with_files_closed_to_it(tmp_path, monkeypatch):
    """A way out of the sandbox, simulated: the process itself can write no file."""
    pytest.importorskip("resource")
    spy = tmp_path / "sandbox.py"
    real = process.Path(process.__file__).with_name("sandbox.py").read_text()
    spy.write_text(
        real.replace(
            "def raise_exception(message: object) -> None:",
            f"def raise_exception(message):\n    with open({str(tmp_path / 'out')!r}, 'w') as file: file.write('x' * 9)\n\ndef unused(message):",
        )
    )
    monkeypatch.setattr(process, "SANDBOX", spy)
    with pytest.raises(ChatTemplateError, match=r"OSError.*File too large"):
        render(template("{{ raise_exception('x') }}"), SAYS[0])
    assert not (tmp_path / "out").exists() or not (tmp_path / "out").stat().st_size


# -- without the library


def test_without_jinja_the_way_to_get_it_is_said(monkeypatch):
    def missing(name):
        raise process.PackageNotFoundError(name)

    monkeypatch.setattr(process, "version", missing)
    with pytest.raises(CapabilityError, match=r"not installed: pip install 'jinja2>=3\.1\.6'"):
        render(template("x"), SAYS[0])


@pytest.mark.parametrize(("found", "holds"), [("3.1.5", False), ("2.11.3", False), ("3.1.6", True), ("3.2", True)])
def test_a_jinja_whose_sandbox_has_holes_is_refused(found, holds, monkeypatch):
    monkeypatch.setattr(process, "version", lambda name: found)
    if holds:
        process.check_jinja()
    else:
        with pytest.raises(CapabilityError, match=f"Jinja {found} has a sandbox with known ways out"):
            process.check_jinja()


def test_a_process_that_cannot_be_started_is_said(monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/nowhere/python")
    with pytest.raises(ChatTemplateError, match="cannot be started"):
        render(template("x"), SAYS[0])


def test_a_template_is_not_shown_whole():
    assert "{{" not in repr(evolve(template("{{ x }}"), file="a"))
