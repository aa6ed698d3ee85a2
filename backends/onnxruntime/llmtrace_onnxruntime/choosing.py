"""Which file of a directory is meant. A directory may hold one model several times: whole, quantised, with a cache and without."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtrace.errors import ModelOpenError, OptionError, shown

GENAI, CONFIG = "genai_config.json", "config.json"
USUAL = ("model.onnx", "decoder_model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx")
"""Names that exporters give the whole decoder in its own precision, the plainest first."""
FOLDERS = ("", "onnx")
"""Where they are: the directory itself, or the folder that the Hugging Face hub's models have."""
ENCODER = "encoder_model.onnx"


def choose(source: Path, file: str | None = None) -> tuple[Path, str]:
    """The `.onnx` file that is meant, and a note on why it is that one; no note where there is no other.

    `file` is relative to the directory. Raises `ModelOpenError` where there is none, or several that are equally likely, with their
    names.
    """
    if not source.is_dir():
        if file is not None:
            raise OptionError(
                f"{source} is a file already: the option file={shown(file)} is for a directory that holds several."
            )
        return source, ""
    found = onnx_files(source)
    names = [path.relative_to(source).as_posix() for path in found]
    if file is not None:
        return _named(source, file, names), ""
    if not found:
        raise ModelOpenError(
            f"{source} holds no .onnx file, nor does its folder onnx: name the file, or export the model."
        )
    if any(path.name == ENCODER for path in found):
        raise ModelOpenError(
            f"{source} holds {ENCODER}: a model of an encoder and a decoder, of which no half is a language model by itself. To trace the "
            "decoder alone, name its file."
        )
    told = _told(source)
    if told in names:
        return source / told, f"{told} of {len(names)} .onnx files, which {GENAI} names" if len(names) > 1 else ""
    ignored = f"{GENAI} names {shown(told)}, which is not in this directory: it is not followed" if told else ""
    if len(found) == 1:
        return found[0], ignored
    for folder in FOLDERS:
        for name in USUAL:
            if (path := source / folder / name) in found:
                others = ", ".join(shown(each) for each in names if source / each != path)
                note = f"{path.relative_to(source).as_posix()}, by its name; also there (option file): {others}"
                return path, "; ".join(filter(None, [note, ignored]))
    raise ModelOpenError(
        f"{source} holds several models, none of them by a usual name: {', '.join(map(shown, names))}. Choose one with the option file "
        f"(-o file={names[0]})."
    )


def onnx_files(directory: Path) -> list[Path]:
    """The `.onnx` files of a directory and of its folder `onnx`."""
    return [
        path
        for folder in FOLDERS
        if (directory / folder).is_dir()
        for path in sorted((directory / folder).iterdir())
        if path.suffix == ".onnx" and path.is_file()
    ]


def config(path: Path, name: str) -> Mapping[str, Any]:
    """A JSON file beside an `.onnx` file, or beside the folder `onnx` that it is in; empty where there is none.

    Raises `ModelOpenError` for one that is no JSON object.
    """
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        return {}
    try:
        data = json.loads(found.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelOpenError(f"{found} cannot be read as JSON: {error}. Fetch it again, or remove it.") from error
    if not isinstance(data, dict):
        raise ModelOpenError(f"{found} is not a JSON object. Fetch it again, or remove it.")
    return data


def decoder(genai: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `genai_config.json` says of the decoder; empty where it says nothing."""
    model = genai.get("model")
    found = model.get("decoder") if isinstance(model, dict) else None
    return found if isinstance(found, dict) else {}


def _named(source: Path, file: str, names: Sequence[str]) -> Path:
    path = source / file
    try:
        inside = path.resolve().is_relative_to(source.resolve()) or path.parent.resolve().is_relative_to(
            source.resolve()
        )
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside or not path.is_file():
        there = ", ".join(map(shown, names)) or "no .onnx file"
        raise OptionError(f"{source} has no file {shown(file)} (option file); it has {there}.")
    return path


def _told(source: Path) -> str:
    found = decoder(config(source / "model.onnx", GENAI)).get("filename")
    return found if isinstance(found, str) else ""
