"""How the command line ends. **Exit code**: 0 done; 1 done, and the answer is bad news; 2 could not; 130 interrupted; 141 the reader of
our output went away.

Whatever goes wrong is one line on standard error that begins with `error:`, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

import click

from llmtrace.cli.words import one_line
from llmtrace.errors import LLMTraceError

DONE, BAD_NEWS, COULD_NOT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
TRACEBACK = "LLMTRACE_TRACEBACK"


class Ending(BaseException):
    """The command is over. Not an `Exception`, so that nothing on the way out takes it for a failure."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def guarded(run: Callable[[], object]) -> int:
    """Run, flush what was printed, and turn whatever was raised into an exit code and one line."""
    code = _ended(run)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return quietly()
    except OSError as error:
        quietly()
        return code if code == COULD_NOT else _fail(_said(error))
    return code


def _ended(run: Callable[[], object]) -> int:
    try:
        answer = run()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return quietly()
    except click.ClickException as error:
        return _fail(_usage(error))
    except LLMTraceError as error:
        _traceback_if_asked()
        return _fail(str(error))
    except OSError as error:
        _traceback_if_asked()
        return _fail(_said(error))
    except MemoryError:
        return _fail(
            "There is not enough memory for this: narrow the selection (fewer sites, heads, tokens) or shorten the prompt."
        )
    except Exception as error:  # the last resort: a bug, or a stranger's plugin
        _traceback_if_asked()
        what = f"{type(error).__name__}: {error}"
        return _fail(f"This is a bug in llmtrace or in a plugin ({what}). {TRACEBACK}=1 shows where; please report it.")
    return answer if isinstance(answer, int) else DONE


def _said(error: OSError) -> str:
    what = error.filename or "What was to be read or written"  # standard output has no name
    return f"{what}: {error.strerror}." if error.strerror else str(error)


def _fail(message: str, code: int = COULD_NOT) -> int:
    with suppress(OSError):  # standard error may be gone: the code still says it
        click.echo(f"error: {one_line(message)}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    """Click's message, with the way to the command's help."""
    ctx = getattr(error, "ctx", None)
    help_line = f" `{ctx.command_path} --help` tells more." if ctx is not None else ""
    said = error.format_message().rstrip(".")
    return said + ("" if said.endswith(("?", "!", "?)")) else ".") + help_line


def quietly() -> int:
    """Nobody reads our output any more: say nothing, and keep the interpreter from trying again when it flushes at exit."""
    with suppress(OSError, ValueError):  # not a real file, as under a test runner
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _traceback_if_asked() -> None:
    if os.environ.get(TRACEBACK, "") not in ("", "0"):
        import traceback

        traceback.print_exc()
