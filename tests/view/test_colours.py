"""The scale: lightness carries strength."""

import itertools

import pytest

from llmtrace.view.colours import DARK, LEVELS, LIGHT, hexadecimal, level, shade, stylesheet
from llmtrace.view.html import assets


def luminance(colour):
    """WCAG 2.2's relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("sign", "pn")
@pytest.mark.parametrize(("theme", "darker"), [(LIGHT, True), (DARK, False)])
def test_each_level_is_darker_on_paper_and_lighter_on_a_dark_screen(theme, darker, sign):
    grey = [luminance(shade(at, sign, theme)[0]) for at in range(LEVELS + 1)]
    assert all((a > b) if darker else (a < b) for a, b in itertools.pairwise(grey))


@pytest.mark.parametrize("sign", "pn")
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_ink_reads_on_every_shade(theme, sign):
    for at in range(LEVELS + 1):
        low, high = sorted(luminance(colour) for colour in shade(at, sign, theme))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_level_is_in_proportion_and_nearly_nothing_has_no_shade():
    assert level(0.0, 1.0) == level(1e-9, 1.0) == level(-0.015, 1.0) == 0
    assert [level(share / LEVELS, 1.0) for share in range(LEVELS + 1)] == list(range(LEVELS + 1))
    assert level(-1.0, 1.0) == LEVELS
    assert level(float("nan"), 1.0) == level(1.0, 0.0) == level(1.0, float("nan")) == 0


def test_a_known_oklch_colour_becomes_the_published_srgb():
    red = hexadecimal(0.62796, 0.25768, 29.234)  # CSS Color 4: oklch of #ff0000
    assert all(abs(int(red[at : at + 2], 16) - want) <= 1 for at, want in ((1, 255), (3, 0), (5, 0)))


def test_the_script_counts_the_same_levels():
    assert f"const LEVELS = {LEVELS};" in assets()[0]


def test_the_stylesheet_has_a_class_for_every_level_twice():
    style = stylesheet()
    assert all(style.count(f".{sign}{at}{{") == 2 for sign in "pn" for at in range(LEVELS + 1))
