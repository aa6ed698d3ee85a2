"""LLMTrace's embedded models as GGUF files, so that their names (`builtin:induction`) open here too.

python -m llmtrace_llamacpp.embedded     writes the files anew, from the directories that come with the core
"""

from __future__ import annotations

from pathlib import Path

from llmtrace.data import PREFIX, embedded

DATA = Path(__file__).parent / "data"


def file_of(source: str) -> Path | None:
    """The file of an embedded model, by its name; None for any other source, and for a model that is not here.

    >>> file_of("builtin:induction").name
    'induction.gguf'
    """
    name = source.removeprefix(PREFIX)
    here = {path.stem: path for path in DATA.glob("*.gguf")} if name != source else {}
    return here.get(name)


def write(name: str, path: Path) -> Path:
    """Write the file of an embedded model: its weights as they are, its tokens under the same ids with the same texts."""
    from llmtrace.families.checkpoint import open_checkpoint
    from llmtrace.tokenizer import open_tokenizer
    from llmtrace_llamacpp.writing import write_gguf

    model = open_checkpoint(embedded(name))
    tokenizer, note = open_tokenizer(embedded(name))
    if tokenizer is None:
        raise ValueError(f"The tokenizer of {name} cannot be read: {note}.")
    return write_gguf(model, path, letters=[tokenizer.token(id).text for id in range(model.spec.vocab)])


if __name__ == "__main__":
    write("induction", DATA / "induction.gguf")
