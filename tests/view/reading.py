"""Reading the page of a comparison: what its tables say, and whether that is a number of the document."""

from __future__ import annotations

import math

import pytest


def number(text):
    """A number as the page writes it."""
    return math.inf if text == "∞" else None if text == "–" else float(text.replace("−", "-").rstrip(" %"))


def near(shown, value, digits=2):
    """Whether a text says a number of the document with so many digits."""
    assert number(shown) == (value if value in (0, None) else pytest.approx(value, rel=0.51 * 10 ** (1 - digits))), (
        shown,
        value,
    )


def cells(tab, section, part="tbody"):
    return [row.locator("td").all_inner_texts() for row in tab.page.locator(f"section.{section} {part} tr").all()]


def detail(tab):
    names = tab.page.locator(".detail .numbers dt").all_inner_texts()
    return dict(zip(names, tab.page.locator(".detail .numbers dd").all_inner_texts(), strict=True))


def sites(document):
    return {each["site"]: each for each in document["candidates"][0]["sites"]}


def strip(document, site, prompt):
    (found,) = [
        each for each in document["candidates"][0]["by_token"] if (each["site"], each["prompt"]) == (site, prompt)
    ]
    return found
