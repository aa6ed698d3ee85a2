"""The conformance kit: subclass it, name a backend, and pytest holds that backend to every law of `plugins.md`.

    class TestToy(BackendConformance):
        backend = ToyBackend

`llmtrace/testing/kit` has the tests, one concern a file.
"""

from __future__ import annotations

from typing import Any

from llmtrace.errors import OptionError
from llmtrace.testing.kit.base import Kit
from llmtrace.testing.kit.delivery import DeliveryKit
from llmtrace.testing.kit.editing import EditingKit
from llmtrace.testing.kit.embedded import EmbeddedKit
from llmtrace.testing.kit.equations import EquationsKit
from llmtrace.testing.kit.faults import FaultsKit
from llmtrace.testing.kit.honesty import HonestyKit
from llmtrace.testing.kit.isolation import IsolationKit
from llmtrace.testing.kit.leaving import LeavingKit
from llmtrace.testing.kit.lending import LendingKit
from llmtrace.testing.kit.neutral import NeutralKit
from llmtrace.testing.kit.replacing import ReplacingKit
from llmtrace.testing.kit.together import TogetherKit
from llmtrace.testing.kit.tokenizing import TokenizingKit

YOURS = {"backend", "families", "gaps", "source", "name_of", "patience", "text", "variants"}
"""What a subclass may set or override."""


class BackendConformance(
    EquationsKit,
    DeliveryKit,
    HonestyKit,
    NeutralKit,
    IsolationKit,
    LeavingKit,
    TogetherKit,
    LendingKit,
    EditingKit,
    ReplacingKit,
    TokenizingKit,
    EmbeddedKit,
    FaultsKit,
):
    """Every test of the kit. Set `backend`; override `source` if the backend opens no checkpoint directories; declare `gaps`.

    Raises `OptionError` when a subclass replaces a test or a fixture, or takes a family away: declare a gap instead.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Hold a subclass to the whole kit."""
        super().__init_subclass__(**keywords)
        for kind in cls.__mro__[: cls.__mro__.index(BackendConformance)]:
            if replaced := [name for name in vars(kind) if name in _fixed()]:
                raise OptionError(f"{cls.__name__} replaces {replaced[0]} of the kit: declare a gap instead (`gaps`).")
        if missing := [family for family in Kit.families if family not in cls.families]:
            raise OptionError(
                f"{cls.__name__} leaves out the family {missing[0]}: declare a gap for it instead (`gaps`)."
            )


def _fixed() -> set[str]:
    """What of the kit a subclass cannot replace."""
    ours = {name for kind in BackendConformance.__mro__[:-1] for name in vars(kind) if not name.startswith("__")}
    return ours - YOURS


def tests() -> dict[str, str]:
    """The kit's tests, and the law that each holds a backend to."""
    return {
        name: " ".join((getattr(BackendConformance, name).__doc__ or "").split())
        for kind in BackendConformance.__mro__[::-1]
        for name in vars(kind)
        if name.startswith("test_")
    }
