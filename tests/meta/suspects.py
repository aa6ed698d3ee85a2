"""One subclass of the kit a wrong backend, run by the tests of this folder in a pytest of their own; collected by nothing else."""

from __future__ import annotations

from typing import ClassVar

from llmtrace.testing import BackendConformance
from tests.meta.honest import Honest
from tests.meta.lies import LIES


class TestHonest(BackendConformance):
    backend = Honest
    patience = 5.0
    variants: ClassVar = {"two threads": {"threads": "2"}}


for _lie in LIES:
    globals()[f"Test{_lie.name}"] = type(f"Test{_lie.name}", (BackendConformance,), {
        "backend": _lie.backend, "patience": 0.3, "variants": _lie.variants, "__module__": __name__,
    })  # fmt: skip
