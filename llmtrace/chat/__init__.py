"""Chat: a conversation written out as the prompt that a model was trained on. **Message**: what one side says, with its role;
**template**: the Jinja text, brought by the model's file, that writes messages out; **mark**: a special token that it may name.

A template is a stranger's code. It is run only where a chat is asked for, in a sandbox, in a process of its own (`process`).
What it wrote is the whole prompt, as in transformers' `apply_chat_template`: nothing is put in front of it, so that a template that
begins with `<bos>` begins with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeAlias, cast, runtime_checkable

from attrs import field, frozen

from llmtrace.errors import ChatTemplateError, PromptError, SchemaViolationError
from llmtrace.tokens import Tokenizer

Messages: TypeAlias = str | Sequence[Mapping[str, object]]
"""What a user says, or messages: `[{"role": "user", "content": "Hi"}, …]`."""


@frozen
class ChatTemplate:
    """A model's chat template. Nothing of it has been run."""

    text: str = field(repr=False)
    """Jinja, as the file has it."""
    file: str
    """Where it stands, for messages."""
    marks: Mapping[str, str] = field(factory=dict)
    """Special tokens by the names that templates know them by: `bos_token`, `eos_token`, …"""


@runtime_checkable
class HasChatTemplate(Protocol):
    """A tokenizer whose model says how a conversation is written out."""

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The template, or None where the model's files have none."""


@frozen
class Chat:
    """A conversation, written out."""

    text: str
    """What the template wrote: to encode with `special=False`, since it has its marks."""
    tokens: tuple[int, ...]
    """Its token ids: a prompt."""
    dated: bool
    """Whether the template asked for the date: another day gives another prompt."""


def chat(
    tokenizer: Tokenizer | None,
    messages: Messages,
    *,
    system: str | None = None,
    date: datetime | None = None,
) -> Chat:
    """Write a conversation out by the template of a model's tokenizer, up to where the model's answer begins.

    `system` is put before the messages; `date` is what a template that asks for one is told (None: now). Raises `PromptError` for what
    are no messages, `ChatTemplateError` where there is no template or it cannot be used, `CapabilityError` without Jinja.
    """
    said = checked(messages, system)
    template = template_of(tokenizer)
    if tokenizer is None or template is None:
        raise ChatTemplateError(
            "This model has no chat template: its files do not say how a conversation is written out. Write the prompt as the model was "
            "trained on it, marks and all, without chat."
        )
    from llmtrace.chat.process import render

    text, dated = render(template, said, date)
    return Chat(text, tuple(tokenizer.encode(text, special=False)), dated)


def template_of(tokenizer: Tokenizer | None) -> ChatTemplate | None:
    """The chat template that a tokenizer brings, if it does. Raises `SchemaViolationError` where it brings something else."""
    brings = isinstance(tokenizer, HasChatTemplate)
    found: object = cast("HasChatTemplate", tokenizer).chat_template if brings else None
    if found is not None and not isinstance(found, ChatTemplate):
        raise SchemaViolationError(
            f"The tokenizer {type(tokenizer).__name__} has {found!r:.60} as its chat_template, which is no ChatTemplate: report it to the "
            "author of the backend that brings it."
        )
    return found


def checked(messages: Messages, system: str | None = None) -> list[dict[str, object]]:
    """Messages as plain data, the system's first. Raises `PromptError` for what is not: each needs a role, and its content.

    >>> checked("Hi", system="Be brief.")
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    said = [_message(message, f"Message {place} of the chat") for place, message in enumerate(_listed(given))]
    if system is None:
        return said
    if said[0]["role"] == "system":
        raise PromptError("The chat has a system message, and another one was given: leave one out.")
    return [{"role": "system", "content": _plain(system, "The system message of the chat")}, *said]


def _listed(given: object) -> Sequence[object]:
    if isinstance(given, Sequence) and given:
        return given
    raise PromptError(f"A chat is a text, or a list of messages with role and content, not {given!r:.80}.")


def _message(message: object, where: str) -> dict[str, object]:
    """A message without the keys that have no value: templates would write out "None"."""
    said = {}
    if isinstance(message, Mapping):
        said = {str(key): _plain(value, where) for key, value in message.items() if value is not None}
    if not isinstance(said.get("role"), str) or not {"content", "tool_calls"} & set(said):
        raise PromptError(
            f'{where} is {message!r:.80}: it needs a role and a content, as {{"role": "user", "content": "Hi"}}.'
        )
    return said


def _plain(value: object, where: str) -> object:
    """Data of JSON's types and no others, so that a template meets no object with methods of ours. Raises `PromptError`."""
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"{where} is not valid Unicode: {error.reason} at character {error.start}.") from error
        return value
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, where) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    raise PromptError(f"{where} holds {value!r:.60}: a chat is made of texts, numbers, lists and dictionaries.")
