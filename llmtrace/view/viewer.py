"""What a viewer is. **Viewer**: a class that turns influence, and a lens, into one file; the hook `llmtrace_viewers` returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence


class Viewer(Protocol):
    """One way to show what was found."""

    name: ClassVar[str]
    """What `--viewer` calls it."""
    suffix: ClassVar[str]
    """Of the files that it makes, with the dot."""

    @staticmethod
    def render(influences: Sequence[Influence], lens: Lens | None = None) -> str | bytes:
        """The whole file. Raises `OptionError` where there is nothing to show."""
