"""What a viewer is, and how one is called. **Viewer**: a class that turns influence, and a lens, into one file; the hook
`llmtrace_viewers` returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from llmtrace.calling import calling_plugin
from llmtrace.errors import PluginError

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence


class Viewer(Protocol):
    """One way to show what was found."""

    name: ClassVar[str]
    """What `--viewer` calls it."""
    suffix: ClassVar[str]
    """Of the files that it makes, with the dot; in any case. One that another viewer has stays with the first."""

    @staticmethod
    def render(influences: Sequence[Influence], lens: Lens | None = None) -> str | bytes:
        """The whole file. Raises `OptionError` where there is nothing to show."""


def rendered(viewer: type[Viewer], influences: Sequence[Influence], lens: Lens | None = None) -> bytes:
    """The file that a viewer makes. Raises `PluginError` for what it does wrong, and typed errors of the viewer as they are."""
    from llmtrace import plugins

    who = f"The viewer {viewer.name} of {plugins.plugins().owner('viewer', viewer.name)}"
    with calling_plugin(who, "render"):
        made: object = viewer.render(influences, lens)
    if not isinstance(made, str | bytes):
        raise PluginError(
            f"{who} returned {type(made).__name__} from render instead of text or bytes. That is a fault of the plugin: report it to its "
            "author."
        )
    try:
        return made.encode("utf-8") if isinstance(made, str) else made
    except UnicodeEncodeError as error:
        raise PluginError(
            f"{who} returned text that is no Unicode ({error.reason} at character {error.start}). That is a fault of the plugin: report it "
            "to its author."
        ) from error
