"""Find and load the llama.cpp library. **Origin**: where its file came from: the option, the environment, or an installed package.

A package that brings the library is located without being imported: its own start-up is slow and does what is not asked for here.
"""

from __future__ import annotations

import ctypes as c
import importlib.util
import os
import platform
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import frozen

from llmtrace.errors import ModelOpenError
from llmtrace_llamacpp import log
from llmtrace_llamacpp.abi import Api
from llmtrace_llamacpp.layout import Layout, verify

VARIABLE = "LLMTRACE_LLAMA_LIB"
"""Environment variable: the files of a library of one's own, joined by `os.pathsep`."""
PACKAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "xllamacpp": ("xllamacpp", ("xllamacpp*.so",)),
    "llama_cpp": ("llama-cpp-python", ("lib/libllama.so", "lib/libllama.dylib", "lib/llama.dll")),
    "llama_cpp_py_sync": ("llama-cpp-py-sync", ("**/libllama.so*", "**/libllama.dylib", "**/llama.dll")),
}
"""Import name of each package that brings a library, in the order of trial: its distribution, and where the file is in it."""
INSTALL = "llama-cpp-py-sync" if sys.platform == "win32" else "xllamacpp"
"""The package to install here."""
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")
"""What the xllamacpp wheel for x86-64 is compiled for, as /proc/cpuinfo has it."""
CPUINFO = Path("/proc/cpuinfo")


@frozen
class Found:
    """The files of a library, before they are loaded."""

    paths: tuple[Path, ...]
    origin: str
    """`the option library`, the environment variable, or the distribution."""


@frozen(eq=False)
class Library:
    """A loaded library, held to what is known of its layout."""

    api: Api
    layout: Layout
    name: str
    """Path and build, for messages."""
    versions: Mapping[str, str]
    """Of the distribution that brought it, where one did, of ggml, and the commit, as far as the library says them."""
    paths: tuple[Path, ...]


_loaded: dict[tuple[Path, ...], Library] = {}
_lock = threading.Lock()


def find(option: str | None = None) -> Found:
    """The files of the library: those that the option names, else the environment, else the first package that is installed.

    Raises `ModelOpenError` if a named file does not exist, or if there is no library at all.
    """
    for named, origin in ((option, "the option library"), (os.environ.get(VARIABLE), VARIABLE)):
        if named:
            paths = tuple(Path(part).expanduser() for part in named.split(os.pathsep) if part)
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None or not paths:
                raise ModelOpenError(
                    f"{origin} names {missing or named!r} as llama.cpp's library, and there is no such file: give the path of "
                    f"libllama.so, or leave it out to use the package {INSTALL}."
                )
            return Found(tuple(path.resolve() for path in paths), origin)
    for package, (distribution, patterns) in PACKAGES.items():
        folder = _folder(package)
        files = sorted(file for pattern in patterns for file in folder.glob(pattern)) if folder else []
        if files:
            return Found((files[0].resolve(),), distribution)
    raise ModelOpenError(
        f"No llama.cpp library was found: pip install {INSTALL}, or name a libllama of your own with the option library or with "
        f"{VARIABLE}."
    )


def load(option: str | None = None) -> Library:
    """The library, loaded and verified once a process. Raises `ModelOpenError`, and `AbiError` if it is of an unknown layout.

    Sets GGML_NO_BACKTRACE in the environment of the process: an assertion that fails in the library would start a debugger
    otherwise, where there is one.
    """
    found = find(option)
    with _lock:
        if found.paths not in _loaded:
            _loaded[found.paths] = _load(found)
        return _loaded[found.paths]


def _load(found: Found) -> Library:
    path = found.paths[0]
    if found.origin == "xllamacpp":
        _check_instructions(path)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    handles = [_open(each) for each in found.paths]
    handles += [_open(each) for each in _siblings(path)] if sys.platform == "win32" else []
    api = Api(handles, str(path))
    versions = _versions(api, handles, found.origin)
    name = f"{path} ({', '.join(' '.join(pair) for pair in versions.items()) or 'of an unknown build'})"
    log.listen(api)
    layout = verify(api, name)
    if not api.ggml_backend_dev_count():  # built with its kernels in files of their own, beside it
        api.ggml_backend_load_all_from_path(os.fsencode(path.parent))
    if not api.ggml_backend_dev_count():
        raise ModelOpenError(
            f"{name} has no kernels for any device: they should be in files beside it. Install it again."
        )
    api.llama_backend_init()
    return Library(api, layout, name, versions, found.paths)


def _open(path: Path) -> c.CDLL:
    try:
        return c.CDLL(str(path))
    except OSError as error:
        text = str(error)
        fix = f"Install it again (pip install --force-reinstall {INSTALL}), or name another with the option library."
        if "libgomp" in text:
            fix = "It needs the system's OpenMP library: apt-get install libgomp1, or what your system calls it."
        elif "GLIBC_" in text:
            fix = f"It was built for a newer system: pip install {INSTALL}, or name another with the option library."
        raise ModelOpenError(f"llama.cpp's library {path} cannot be loaded: {text}. {fix}") from error


def _siblings(path: Path) -> list[Path]:
    """The other libraries in the folder: Windows looks a function up in the very file only."""
    return sorted(path.parent.glob("ggml*.dll"))


def _folder(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _check_instructions(path: Path) -> None:
    """Raise `ModelOpenError` where the wheel's instructions would kill the process. Where that cannot be told, go on."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return
    try:
        flags = next((line.split() for line in CPUINFO.read_text().splitlines() if line.startswith("flags")), [])
    except OSError:
        return
    missing = [flag for flag in INSTRUCTIONS if flags and flag not in flags]
    if missing:
        raise ModelOpenError(
            f"{path} is compiled for processors with {', '.join(INSTRUCTIONS)}, and this one lacks {', '.join(missing)}. Build "
            f"llama.cpp on this machine, and name its libllama.so with the option library or with {VARIABLE}."
        )


def _versions(api: Api, handles: list[c.CDLL], origin: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with suppress(PackageNotFoundError):  # a library of the user's own
        found[origin] = version(origin)
    for name, function in (("ggml", "ggml_version"), ("ggml commit", "ggml_commit")):
        said = getattr(api, function)() if hasattr(api, function) else None
        if said and said != b"unknown":
            found[name] = said.decode("utf-8", "replace")
    number = _symbol(c.c_int, "LLAMA_BUILD_NUMBER", handles)
    if number is not None and number.value > 0:
        found["llama.cpp"] = f"b{number.value}"
    return found


def _symbol(kind: type[c.c_int], name: str, handles: list[c.CDLL]) -> c.c_int | None:
    for handle in handles:
        try:
            return kind.in_dll(handle, name)
        except ValueError:
            continue
    return None
