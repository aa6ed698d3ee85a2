"""LLMTrace's embedded models as ONNX files, so that their names (`builtin:induction`) open here too.

python -m llmtrace_onnxruntime.embedded     writes the files anew, from the directories that come with the core
"""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

from llmtrace.data import PREFIX, embedded

DATA = Path(__file__).parent / "data"
GRAPH = "model.onnx"
BESIDE = ("config.json", "tokenizer.json")
"""What an exporter copies from a checkpoint's directory."""


def file_of(source: str) -> Path | None:
    """The `.onnx` file of an embedded model, by its name; None for any other source, and for a model that is not here.

    >>> file_of("builtin:induction").parent.name
    'induction'
    """
    name = source.removeprefix(PREFIX)
    here = {path.parent.name: path for path in DATA.glob(f"*/{GRAPH}")} if name != source else {}
    return here.get(name)


def write(name: str, directory: Path) -> Path:
    """Write an embedded model's graph into a directory, which is made if need be, with what stands beside it; returns the graph's path."""
    from llmtrace.families.checkpoint import open_checkpoint
    from llmtrace_onnxruntime.writing import write_onnx

    directory.mkdir(parents=True, exist_ok=True)
    for file in BESIDE:
        copyfile(embedded(name) / file, directory / file)
    return write_onnx(open_checkpoint(embedded(name)), directory / GRAPH)


if __name__ == "__main__":
    write("induction", DATA / "induction")
