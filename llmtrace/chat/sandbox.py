"""Runs one chat template, in the process that `llmtrace.chat.process` starts for it: Jinja's immutable sandbox, with what transformers
gives a template and nothing else. **Limits**: of memory, of time on the processor, and of what may be written.

The job is one JSON document on standard input, and so is the answer on standard output: `["done", text, dated]`, or the kind of an
error and its message.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_MEMORY = 1 << 30
"""Bytes of the whole process."""
MOST_SECONDS = 10
"""On the processor; a template takes milliseconds."""
MOST_TEXT = 1 << 24
"""Characters that a template may write."""


class RefusedError(jinja2.TemplateError):
    """`raise_exception` of a template: it does not take these messages."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own gives an empty text for an attribute that it keeps from a template, and goes on; here that is the end."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Raises `SecurityError`."""
        raise SecurityError(f"it reaches for the attribute {attribute!r} of a {type(obj).__name__}")


class Generation(Extension):
    """`{% generation %}`, which only marks what an assistant says: its content, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The content."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class PlainNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, by which Python's insides are reached."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may give it a `self`
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)


class PlainDict:
    """`dict(…)`, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A dictionary."""
        return dict(*args, **kwargs)


class Clock:
    """`strftime_now`, which remembers whether it was asked."""

    def __init__(self, date: datetime) -> None:
        self._date = date
        self.asked = False

    def function(self) -> Callable[[str], str]:
        """What templates call."""

        def strftime_now(format: str) -> str:
            self.asked = True
            return self._date.strftime(format)

        return strftime_now


def run(text: str, clock: Clock, values: Mapping[str, Any], most: int = MOST_TEXT) -> str:
    """What a template writes. Raises whatever it does, `RefusedError` for its own errors, `OverflowError` beyond `most` characters."""
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception, strftime_now=clock.function(), dict=PlainDict(), namespace=PlainNamespace
    )
    written, length = [], 0
    for piece in environment.from_string(text).generate(values):
        written.append(piece)
        length += len(piece)
        if length > most:
            raise OverflowError(f"it writes more than {most} characters")
    return "".join(written)


def raise_exception(message: object) -> None:
    """A template's own error. Raises `RefusedError`."""
    raise RefusedError(str(message))


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Python writes it: Jinja's own filter escapes what HTML does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def answer(job: Mapping[str, Any]) -> list[Any]:
    """What the template wrote, or what was wrong with it."""
    clock = Clock(datetime.fromisoformat(job["date"]))
    try:
        text = run(job["template"], clock, job["values"])
        text.encode()
    except RefusedError as error:
        return ["refused", str(error)]
    except SecurityError as error:
        return ["unsafe", str(error)]
    except jinja2.TemplateSyntaxError as error:
        return ["broken", f"line {error.lineno}: {error.message}"]
    except jinja2.UndefinedError as error:
        return ["undefined", str(error)]
    except MemoryError:
        return ["broken", "it needs more memory than a template may have"]
    except Exception as error:  # a stranger's code may raise anything
        return ["broken", f"{type(error).__name__}: {error}"]
    return ["done", text, clock.asked]


def _public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _limit() -> None:
    """Hold this process to the limits, where the system knows them."""
    try:
        import resource
    except ImportError:
        return  # Windows: who started it holds it to its time
    for what, most in (
        (resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CPU, MOST_SECONDS), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NPROC, 0),
    ):  # fmt: skip
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):
            continue  # macOS has no limit of address space


if __name__ == "__main__":
    _job = json.load(sys.stdin)
    _limit()
    json.dump(answer(_job), sys.stdout)
