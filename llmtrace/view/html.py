"""One self-contained page. **Fragment**: a heat line for notebooks, without script.

The page opens from `file://` and asks the network for nothing: its policy forbids everything but its own script and style, by
digest. Data stands in it as JSON that cannot end its element; the script places text and never markup.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from llmtrace.errors import OptionError
from llmtrace.view import pack
from llmtrace.view.colours import level, shade, stylesheet
from llmtrace.view.files import write
from llmtrace.view.pack import Document
from llmtrace.view.sentence import sentence
from llmtrace.view.visible import named, runs

if TYPE_CHECKING:
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence

SCRIPTS = (
    "dom.js", "tip.js", "tokens.js", "map.js", "tables.js", "lens.js", "influence.js", "trace.js", "compare-scale.js", "compare-sites.js",
    "compare-map.js", "compare-curve.js", "compare-tokens.js", "compare-prompts.js", "compare-budget.js", "compare-mechanisms.js", "compare-tables.js", "compare.js", "main.js",
)  # fmt: skip
"""The page's script, in the order in which it is put together."""
STYLES = ("page.css", "compare.css")
"""Its style, before the colours of the scale."""


def page(documents: Sequence[Document], lens: Document | None = None, title: str | None = None) -> str:
    """One page about one prompt: a tab for each influence document, and the lens.

    The documents are those of `llmtrace influence --json` and `llmtrace lens --json`. Raises `OptionError` where there is neither.
    """
    if not documents and lens is None:
        raise OptionError("There is nothing to show: give at least one influence or a lens.")
    content = {
        "kind": "influence",
        "documents": [pack.influence(document) for document in documents],
        "lens": None if lens is None else pack.lens(lens),
    }
    first = documents[0] if documents else lens or {}
    return fill(content, title or _title(first), _without_script(documents, lens))


def save_page(
    path: str | Path, influences: Sequence[Influence], lens: Lens | None = None, title: str | None = None
) -> None:
    """Write the page of some records, atomically. Raises `TraceFileError`, and leaves an older file as it was."""
    documents = [influence.to_json() for influence in influences]
    write(path, page(documents, None if lens is None else lens.to_json(), title))


def fill(content: Mapping[str, Any], title: str, without_script: str = "") -> str:
    """The page around its data: script, style and policy put in. `without_script` is markup for readers without JavaScript."""
    script, style = assets()
    return Template(_asset("page.html")).substitute(
        title=escape(str(pack.safe(title))),
        policy=f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        data=embed(content),
        plain=without_script,
    )


def embed(content: Any) -> str:
    r"""JSON that may stand inside an element: pure ASCII, no NaN, and no character that markup knows.

    >>> embed("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@lru_cache(maxsize=1)
def assets() -> tuple[str, str]:
    """The page's script and style."""
    script = '"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS)
    return script, "".join(map(_asset, STYLES)) + stylesheet()


def _asset(name: str) -> str:
    return (files("llmtrace.view") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}"


def _title(document: Document) -> str:
    """What an influence or a lens is about: a token at a position; the position alone where no target enters."""
    if not document.get("aims", True):
        return f"{document['method']} at position {document.get('position')}"
    foil = document.get("foil")
    against = f" rather than {_shown(foil)}" if foil else ""
    return f"{_shown(document.get('target') or {})}{against} at position {document.get('position')}"


def _without_script(documents: Sequence[Document], lens: Document | None) -> str:
    """The scores as plain tables, for readers without JavaScript."""
    out = ["<p>Without JavaScript this page shows its numbers as tables.</p>"]
    for document in documents:
        caption = f"{document['method']}: {_title(document)}" if document.get("aims", True) else _title(document)
        pairs = zip(document["tokens"], document["scores"], strict=True)
        rows = [(str(place), _shown(token), f"{score:.5g}") for place, (token, score) in enumerate(pairs)]
        out.append(plain_table(caption, ("position", "token", "score"), rows))
    if lens is not None:
        points = [(point["site"], pack.rank(point)) for point in lens["layers"]]
        out.append(plain_table(f"lens: {_title(lens)}", ("site", "rank of the target"), points))
    return "".join(out)


def _shown(token: Document) -> str:
    return named(token.get("text", ""), token.get("id", 0))


def plain_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts for readers without JavaScript."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(str(pack.safe(cell)))}</td>" for cell in row) + "</tr>" for row in rows
    )
    columns = "".join(f"<th>{escape(column)}</th>" for column in head)
    return f"<table><caption>{escape(str(pack.safe(caption)))}</caption><tr>{columns}</tr>{cells}</table>"


def fragment(influence: Influence) -> str:
    """The prompt as shaded tokens, with the numbers below them and in their titles; static, safe in any notebook."""
    top = max((abs(float(score)) for score in influence.scores), default=0.0)
    chips = []
    for place, (token, score) in enumerate(zip(influence.tokens, influence.scores, strict=True)):
        back, ink = shade(level(float(score), top), "n" if score < 0 else "p")
        text = "".join(runs(token.text, token.bytes)) if token.text or token.bytes else f"#{token.id}"
        ring = "outline:2px solid #888;" if place == influence.position else ""
        hint = f"position {place}, id {token.id}, {named(token.text, token.id)}: {float(score):.5g}"
        chips.append(
            f'<span style="display:inline-block;text-align:center;margin:2px 1px" title="{escape(hint)}">'
            f'<bdi style="display:block;background:{back};color:{ink};border-radius:3px;padding:1px 4px;{ring}white-space:pre">'
            f'{escape(text)}</bdi><span style="font-size:70%;opacity:.75">{float(score):.2g}</span></span>'
        )
    head = f'<div style="font-size:85%;opacity:.8">{escape(sentence(influence))}</div>'
    return f'<div dir="ltr" style="font-family:system-ui,sans-serif;line-height:1.5">{head}<div>{"".join(chips)}</div></div>'
