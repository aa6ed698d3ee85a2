"""**Lie**: one deliberately wrong backend, and the test of the kit that names what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tests.meta.honest import Honest


@frozen
class Lie:
    """One row of the table of lies."""

    fault: str
    """What is wrong, in words."""
    wrong: type[Any]
    """The session, or the backend, that does it."""
    test: str
    """The test that must fail, with its family if it has one."""
    says: str
    """A pattern that its message must match: the site or the fault."""
    variants: Mapping[str, Mapping[str, Any]] = {}
    """Further options that its kit names."""

    @property
    def name(self) -> str:
        """Of the class."""
        return self.wrong.__name__

    @property
    def backend(self) -> type[Any]:
        """The class under test."""
        return self.wrong if issubclass(self.wrong, Honest) else type(self.name, (Honest,), {"session": self.wrong})
