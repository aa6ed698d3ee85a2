"""The viewers that the core brings: one HTML page, and plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from llmtrace.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.view.viewer import Viewer


class HtmlViewer:
    """One self-contained page."""

    name: ClassVar[str] = "html"
    suffix: ClassVar[str] = ".html"

    @staticmethod
    def render(influences: Sequence[Influence], lens: Lens | None = None) -> str:
        """The page. Raises `OptionError` where there is nothing to show."""
        from llmtrace.view.html import page

        return page([influence.to_json() for influence in influences], None if lens is None else lens.to_json())


class TextViewer:
    """Plain text, as the terminal prints it without colour."""

    name: ClassVar[str] = "text"
    suffix: ClassVar[str] = ".txt"

    @staticmethod
    def render(influences: Sequence[Influence], lens: Lens | None = None) -> str:
        """The text. Raises `OptionError` where there is nothing to show."""
        from llmtrace.view.text import plain

        return plain(influences, lens)


@hookimpl
def llmtrace_viewers() -> Sequence[type[Viewer]]:
    """`html` and `text`."""
    return [HtmlViewer, TextViewer]
