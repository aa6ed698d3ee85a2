"""Starts the process in which a chat template runs, and tells what became of it.

A sandbox keeps a template from files and from Python's insides, but not from running for ever or filling the memory: only another
process can be ended. It costs about a tenth of a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmtrace.chat import ChatTemplate
from llmtrace.errors import CapabilityError, ChatTemplateError, PromptError, shown

SANDBOX = Path(__file__).with_name("sandbox.py")
NEEDED = (3, 1, 6)
"""Jinja before this version has known ways out of its sandbox."""
SECONDS = 20
"""More than the process gives itself, for a machine that is busy."""
EPOCH = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that stand for now where a text should be the same on every day: https://reproducible-builds.org/specs/source-date-epoch/"""
FIX = "Write the prompt out yourself, without chat"


def render(
    template: ChatTemplate, messages: Sequence[Mapping[str, object]], date: datetime | None = None
) -> tuple[str, bool]:
    """What a template writes for these messages up to where the answer begins, and whether it asked for the date.

    Raises `ChatTemplateError` for a template that is broken, refused by the sandbox, or does not end; `CapabilityError` without Jinja.
    """
    check_jinja()
    asked = {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": True}
    job = {"template": template.text, "values": {**template.marks, **asked}, "date": (date or now()).isoformat()}
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and file, which imports nothing of ours: that would be of the limits' memory
            [sys.executable, "-P", str(SANDBOX)],
            input=json.dumps(job).encode(), capture_output=True, timeout=SECONDS, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _endless(template) from error
    except OSError as error:
        raise ChatTemplateError(
            f"The chat template of {template.file} runs in a process of its own, which cannot be started ({error}). {FIX}."
        ) from error
    try:
        kind, *rest = json.loads(done.stdout)
    except ValueError:
        if done.returncode < 0:  # by its own limits
            raise _endless(template) from None
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it left no message"]
        raise ChatTemplateError(
            f"The chat template of {template.file} ended its process (status {done.returncode}): {shown(said[-1], 200)}. {FIX}."
        ) from None
    if kind != "done":
        raise ChatTemplateError(_said(kind, template, shown(rest[0], 200)))
    return rest[0], rest[1]


def check_jinja() -> None:
    """Raise `CapabilityError` unless a Jinja is installed whose sandbox holds; it is not imported here."""
    install = "pip install 'jinja2>=3.1.6'"
    try:
        found = version("jinja2")
    except PackageNotFoundError:
        raise CapabilityError(f"A chat template is written in Jinja, which is not installed: {install}") from None
    if tuple(int(part) for part in found.split(".")[:3] if part.isdecimal()) < NEEDED:
        raise CapabilityError(f"Jinja {found} has a sandbox with known ways out of it: {install}")


def now() -> datetime:
    """The time that a template is told: `SOURCE_DATE_EPOCH` where it is set, else now. Raises `PromptError` for one that is no number."""
    fixed = os.environ.get(EPOCH)
    if fixed is None:
        return datetime.now()  # noqa: DTZ005  # the reader's own day, as transformers has it
    try:
        return datetime.fromtimestamp(int(fixed), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise PromptError(f"{EPOCH} is {shown(fixed)}: it must be a number of seconds since 1970.") from error


def _endless(template: ChatTemplate) -> ChatTemplateError:
    return ChatTemplateError(
        f"The chat template of {template.file} was stopped: it does not end, or needs more memory or time than a template may have. {FIX}."
    )


def _said(kind: Any, template: ChatTemplate, why: str) -> str:
    whose = f"The chat template of {template.file}"
    return {
        "refused": f"{whose} does not take these messages: {why}. Change them, or write the prompt out yourself, without chat.",
        "unsafe": f"{whose} does what no template may, and was stopped: {why}. Do not trust that file.",
        "undefined": f"{whose} uses what is not there: {why}. It may need other messages, or be damaged. {FIX}.",
    }.get(kind, f"{whose} cannot be used: {why}. {FIX}.")
