"""Files that end the process. **Crash**: llama.cpp answers some files with an assertion, which no caller can catch; so a file is first
opened, and run on two tokens, by a process that may die of it.

`check` refuses from the header alone what is known to crash, with a better message; `admit` finds the rest.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from llmtrace.errors import (
    BackendError,
    LLMTraceError,
    ModelOpenError,
    OptionError,
    PromptError,
    UnsupportedModelError,
    shown,
)
from llmtrace.gguf_header import Header
from llmtrace.gguf_split import parts_beside
from llmtrace_llamacpp.abi import AbiError
from llmtrace_llamacpp.library import Library, load
from llmtrace_llamacpp.native import ContextSettings, NativeModel, Node

MOST_LAYERS = 512
"""More end the process (LLAMA_MAX_LAYERS)."""
MOST_COUNTED = 2**31 - 1
"""llama.cpp reads metadata without a sign and counts with one: a window of 2**31 sees nothing."""
TOKENS = "tokenizer.ggml.tokens"
BLOCK = re.compile(r"blk\.(\d+)\.")
ASSERTION = re.compile(r"(GGML_ASSERT\(.*\) failed|GGML_ABORT.*|what\(\): .*|fatal error.*|.*[Aa]ssertion .* failed.*)")
"""What the library leaves on standard error when it ends the process."""
REFUSED = 42
"""Exit status of the process that could not open the file, and said why."""
BASE_SECONDS, BYTES_PER_SECOND = 60, 20_000_000
"""How long a file may take: on a slow disk, and twice over."""

SAID = {
    each.__name__: each
    for each in (AbiError, BackendError, ModelOpenError, OptionError, PromptError, UnsupportedModelError)
}
"""The errors that the other process may have raised, by name."""

_admitted: set[tuple[object, ...]] = set()


def check(header: Header) -> None:
    """Raise `ModelOpenError` for metadata that are known to end the process: the key, its value, and what would be sound."""
    architecture, stored = header.architecture, header.metadata
    counts = {int(found[1]) for name in header.tensors if (found := BLOCK.match(name))}
    layers = stored.get(f"{architecture}.block_count")
    if not isinstance(layers, int) or isinstance(layers, bool) or not 1 <= layers <= MOST_LAYERS:
        raise _unsound(header, f"{architecture}.block_count", layers, f"a number of layers from 1 to {MOST_LAYERS}")
    if counts != set(range(layers)):
        raise _unsound(
            header, f"{architecture}.block_count", layers, f"{len(counts)}, as many as there are blocks of tensors"
        )
    for key, value in stored.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _unsound(header, key, value, "a finite number")
        if key.startswith(f"{architecture}.") and isinstance(value, int) and value > MOST_COUNTED:
            raise _unsound(
                header, key, value, f"{MOST_COUNTED} at most", "which llama.cpp would take for a negative number"
            )
        if key.endswith(("layer_norm_epsilon", "layer_norm_rms_epsilon")) and not (
            isinstance(value, float) and value > 0
        ):
            raise _unsound(header, key, value, "a number above 0")
        if key in {f"{architecture}.attention.head_count", f"{architecture}.embedding_length"} and (
            not isinstance(value, int) or value < 1
        ):
            raise _unsound(header, key, value, "a number above 0")
    tokens = header.array(TOKENS) if TOKENS in header.arrays else []
    if len(set(tokens)) != len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise _unsound(header, TOKENS, twice, "there once, and is there twice")


def admit(path: str | Path, library: Library, *, timeout: float | None = None) -> None:
    """Open the file in a process of its own and run it on two tokens; once for each file and library that this process meets. Of a
    file that was split, all parts count; they are found by the name of the first, so a link keeps the name that it has.

    `timeout` is in seconds; None is a minute and more for large files. Raises what that process raised, `ModelOpenError` with the
    assertion if it died or did not end, and `AbiError` if the library never called back.
    """
    path = Path(path)
    try:
        parts = [(each.resolve(), each.stat()) for each in parts_beside(path)]
    except OSError as error:
        raise ModelOpenError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    key = (*((real, status.st_size, status.st_mtime_ns) for real, status in parts), library.paths)
    if key in _admitted:
        return
    size = sum(status.st_size for _, status in parts)
    seconds = BASE_SECONDS + size / BYTES_PER_SECOND if timeout is None else timeout
    libraries = os.pathsep.join(map(str, library.paths))
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and module; the path is an argument
            [sys.executable, "-P", "-m", "llmtrace_llamacpp.guard", str(path.absolute()), libraries],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ModelOpenError(
            f"{path} kept llama.cpp busy for {seconds:.0f} s without running two tokens: it may be damaged, or the machine too small. "
            "Open it with guard=false if you trust it."
        ) from error
    except OSError as error:
        raise ModelOpenError(
            f"{path} is first tried in a process of its own, which cannot be started ({error}): open it with guard=false if you "
            "trust it."
        ) from error
    if done.returncode:
        raise _reason(path, done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
    _admitted.add(key)


def _reason(path: Path, status: int, output: bytes, said: str) -> LLMTraceError:
    """What the other process died of, or said."""
    if status == REFUSED:
        try:
            kind, message = json.loads(output)
        except ValueError:
            kind, message = "ModelOpenError", f"{path} was refused without a reason."
        named = SAID.get(str(kind), ModelOpenError)
        return named(message) if issubclass(named, ModelOpenError) else ModelOpenError(str(message))
    found = ASSERTION.findall(said)
    lines = [line for line in said.splitlines() if line.strip()]
    try:
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
    except ValueError:
        name = f"signal {-status}"
    why = found[-1].strip() if found else shown(lines[-1].strip(), 200) if lines else "it left no message"
    fix = {
        "SIGKILL": "There may be too little memory for it",
        "SIGILL": "The library is compiled for another processor: build llama.cpp here, and name it with the option library",
    }.get(name, "It is damaged, or contradicts itself: fetch or convert it again")
    return ModelOpenError(f"{path} makes llama.cpp end its process ({name}): {why}. {fix}.")


def _unsound(
    header: Header, key: str, value: object, sound: str, why: str = "of which llama.cpp would die"
) -> ModelOpenError:
    return ModelOpenError(
        f"{header.path} says {shown(key)} = {shown(value)}, {why}; it should be {sound}. Convert it again."
    )


class _Counting:
    """A watcher that wants the first node, to see that it is asked and shown."""

    def __init__(self) -> None:
        self.shown = 0

    def wants(self, index: int, node: Node) -> bool:
        """The first."""
        return index == 0

    def ready(self, index: int, node: Node) -> None:
        """Was computed."""
        self.shown += 1


def _try(path: str, libraries: str) -> None:
    """In the process that may die: load, tokenize, run."""
    library = load(libraries)
    with (
        NativeModel(path, library=library) as model,
        model.context(ContextSettings(n_ctx=min(2, max(1, model.n_ctx_train)))) as context,
    ):
        if model.has_tokenizer:
            model.tokenize("a b", special=True, parse_special=True)
        counting = _Counting()
        context.decode([0, model.n_vocab - 1][: context.settings.n_ctx], counting)
        if not counting.shown:
            raise AbiError(
                f"{library.name} computes without calling back: nothing can be traced with it. Name another with the option library."
            )


def _main(path: str, libraries: str) -> int:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is what it is for: no core files
    try:
        _try(path, libraries)
    except LLMTraceError as error:
        sys.stdout.write(json.dumps([type(error).__name__, str(error)]))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
