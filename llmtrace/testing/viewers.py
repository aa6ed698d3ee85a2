"""The laws of viewers. **Hostile**: records whose tokens, source and warnings hold markup, quotes, controls and marks that turn the writing
direction, as a stranger's model may bring them; **plain**: the same records with words in their place.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import numpy as np
from attrs import evolve

from llmtrace.brought import fault
from llmtrace.errors import OptionError
from llmtrace.influence.logit_lens import Lens
from llmtrace.influence.record import Influence
from llmtrace.influence.run import picture
from llmtrace.opening import open as open_model
from llmtrace.trace import Token
from llmtrace.view.viewer import Viewer, rendered

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "`</script><script>", "a,b\t;'\"", "\x1b[31m\n\r\x00", "\u202e&amp;]]>",
)  # fmt: skip
MARKUP = (".html", ".htm", ".xhtml", ".svg", ".xml", ".md")
XML = (".xhtml", ".svg", ".xml")
TABLES = {".csv": ",", ".tsv": "\t"}
FIRST_ID = 48100
"""Ids that stand in no rendering by chance."""
BESIDE = ("alti", "dla", "attention")


def check_viewer(viewer: type[Viewer]) -> None:
    """Hold a viewer to its promise: it renders whatever records there may be, the same each time, and lets no token out of its place.

    Markup (`.html`, `.svg`, `.md` …) must escape a token `<script>`; `.json`, `.xml`, `.csv` must still parse; `.txt` must hold no control
    characters. A viewer that shows tokens shows the id of one that has no text. Raises `AssertionError` with the law that is broken, and
    `PluginError` as a user would get it.
    """
    wrong = fault("viewer", viewer)
    _hold(not wrong, f"The viewer {wrong}.")
    influences, lens = _records()
    words = [f" word{place}" for place in range(len(influences[0].tokens))]
    hostile = [HOSTILE[place % len(HOSTILE)] for place in range(len(words))]
    shown = _render(viewer, *_with(words, influences, lens))
    _hold(bool(shown), f"{viewer.name} renders nothing at all.")
    _hold(shown == _render(viewer, *_with(words, influences, lens)), f"{viewer.name} does not render the same again.")
    _check_scores(viewer, influences)
    for some, other in (((), lens), ((), None), (influences[-1:], None)):
        _may_refuse(viewer, *_with(hostile, some, other))
    _check_text(viewer, shown, _render(viewer, *_with(hostile, influences, lens)))
    _check_ids(viewer, words, shown, _render(viewer, *_with([""] * len(words), influences, lens)))


def _records() -> tuple[list[Influence], Lens]:
    """What a page shows, and an influence of which no more is known than its scores."""
    with open_model("builtin:induction", backend="reference") as model:
        influences, lens = picture(model, "c a f e b o d c a f", BESIDE, foil="b", target="e")
    first = influences[0]
    bare = Influence(
        first.model, "bare", first.contract, first.tokens, first.position, first.target, None, -first.scores, None
    )
    heads = influences[2].heads
    undefined = evolve(influences[2], heads=None if heads is None else np.full_like(heads, np.nan))
    return [*influences[:2], undefined, bare], lens


def _with(
    texts: Sequence[str], influences: Sequence[Influence], lens: Lens | None
) -> tuple[list[Influence], Lens | None]:
    """The records with other texts and ids for every token."""

    def token(old: Token) -> Token:
        return Token(FIRST_ID + old.id, texts[old.id % len(texts)])

    tokens = tuple(Token(FIRST_ID + place, text) for place, text in enumerate(texts))
    changed = [
        evolve(
            each, model=evolve(each.model, source=texts[0] or "source"), tokens=tokens, target=token(each.target),
            foil=each.foil and token(each.foil), predictions=tuple(map(token, each.predictions)), warnings=(f"warning: {texts[0]}",),
        )
        for each in influences
    ]  # fmt: skip
    if lens is None:
        return changed, None
    layers = tuple(evolve(each, top=tuple((token(best), p) for best, p in each.top)) for each in lens.layers)
    source = evolve(lens.model, source=texts[0] or "source")
    return changed, evolve(lens, model=source, tokens=tokens, target=token(lens.target), layers=layers)


def _render(viewer: type[Viewer], influences: Sequence[Influence], lens: Lens | None) -> bytes:
    return rendered(viewer, influences, lens)


def _may_refuse(viewer: type[Viewer], influences: Sequence[Influence], lens: Lens | None) -> bytes | None:
    try:
        return _render(viewer, influences, lens)
    except OptionError:  # there is nothing to show
        return None


def _check_scores(viewer: type[Viewer], influences: Sequence[Influence]) -> None:
    last = influences[-1]
    one, other = _may_refuse(viewer, [last], None), _may_refuse(viewer, [evolve(last, scores=last.scores[::-1])], None)
    _hold(one is None or one != other, f"{viewer.name} renders the same whatever the scores are.")


def _check_text(viewer: type[Viewer], plain: bytes, hostile: bytes) -> None:
    """What the suffix promises, of hostile records."""
    suffix, name = viewer.suffix.casefold(), viewer.name
    if suffix in MARKUP:
        for tag in (b"<script", b"</script", b"<img"):
            _hold(
                plain.lower().count(tag) == hostile.lower().count(tag),
                f"{name} lets a token write {tag.decode()!r} into markup: escape it (`html.escape`).",
            )
    if suffix in XML:
        _parses(name, "XML", ET.XMLParser(), hostile)  # noqa: S314  (it was rendered here, from the texts above)
    if suffix == ".json":
        _parses(name, "JSON", None, hostile)
    if suffix in TABLES:
        shapes = [
            [len(row) for row in csv.reader(io.StringIO(text.decode(), newline=""), delimiter=TABLES[suffix])]
            for text in (plain, hostile)
        ]
        _hold(shapes[0] == shapes[1], f"{name} lets a token begin a cell or a row: quote it (the module `csv` does).")
    if suffix == ".txt":
        moving = {c for c in hostile.decode() if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf")}
        _hold(not moving, f"{name} lets a token move the cursor ({', '.join(map(repr, sorted(moving)))}): show a mark.")


def _parses(name: str, what: str, parser: ET.XMLParser | None, text: bytes) -> None:
    try:
        if parser is None:
            json.loads(text, parse_constant=lambda word: float(f"no {word}"))
        else:
            parser.feed(text)
            parser.close()
    except (ValueError, ET.ParseError) as error:
        raise AssertionError(f"{name} renders what is no {what} ({error}).") from error


def _check_ids(viewer: type[Viewer], words: Sequence[str], shown: bytes, textless: bytes) -> None:
    for place, word in enumerate(words):
        if word.strip().encode() in shown:
            _hold(
                str(FIRST_ID + place).encode() in textless,
                f"{viewer.name} shows nothing of a token without a text: show its id, as where a model has no tokenizer.",
            )


def _hold(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
