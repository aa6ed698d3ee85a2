"""Damaged files through `llmtrace.open`, as a user opens them: each is a typed error, or a model whose every signal obeys its
equations; the user's process lives on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("xllamacpp", reason="brings the library")
pytest.importorskip("gguf")

from llmtrace.gguf_header import read_header
from tests.backends.llamacpp.mutations import KINDS, mapped, mutations

EACH = 17
"""Files of each kind: over 300 in all."""
SOUND_BUT_FOR_THE_WEIGHTS = "numbers_that_are_none"

USER = """
import json, sys
from pathlib import Path
import llmtrace
for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
    try:
        with llmtrace.open(path, backend="llamacpp", options={"threads": 1}) as model:
            ids = list(range(min(3, model.spec.vocab)))[: model.spec.context]
            worst = [verdict for verdict in model.verify(ids) if verdict.status == "violated"]
            try:
                model.tokens("a b")
            except llmtrace.LLMTraceError:
                pass
        how = f"violated: {worst[0].site}: {worst[0].reason}" if worst else "holds"
    except llmtrace.LLMTraceError as error:
        how = f"{type(error).__name__}: {error}"
    print(json.dumps([path.stem, how]), flush=True)
"""


def test_the_map_of_a_header_is_that_of_the_reader(tiny):
    path = tiny("llama")[1]
    of, header = mapped(path), read_header(path)
    assert len(of.tensors) == len(header.tensors) and -(-of.end // 32) * 32 == header.start
    assert len(of.entries) == len(header.metadata) + len(header.arrays)


@pytest.mark.slow
def test_damaged_files_are_typed_errors_or_models_that_hold_and_the_process_lives(tmp_path, tiny):
    count = EACH * len(KINDS)
    assert count > 300
    for number, (name, raw) in enumerate(mutations(tiny("llama")[1], range(count))):
        (tmp_path / f"{number:03d}-{name}.gguf").write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", USER, str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    outcomes = dict(json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0 and len(outcomes) == count, (len(outcomes), done.returncode, done.stderr[-2000:])
    for file, how in outcomes.items():
        assert "\n" not in how and len(how) < 1500, how
        if file.endswith(SOUND_BUT_FOR_THE_WEIGHTS):
            assert how.startswith("violated: ") and ("NaN" in how or "infin" in how), (file, how)
        else:
            said = "NaN or infinite" in how  # a base of rotation of 1e-45, numbers read as another type
            assert how == "holds" or "Error: " in how or said, (file, how)
        if "-cut_" in file:
            assert how.startswith("ModelOpenError: ") and f"{file}.gguf" in how, how
    held = sum(how == "holds" for how in outcomes.values())
    assert 10 < held < count / 3, "damage that is none, or that none survives, tries nothing"
    assert any("llama.cpp cannot load" in how for how in outcomes.values()), "no file reached the guard"
