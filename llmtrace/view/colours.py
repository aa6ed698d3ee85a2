"""One scale for page, notebook and terminal. **Level**: 0 … 32, how strong a number is beside the strongest; **shade**: its colour.

Lightness alone carries the strength, so that a grey copy orders the same way; hue repeats the sign (blue adds, orange takes away).
Colours are mixed in OKLCH (Björn Ottosson, 2020), where equal steps of L look equally large.
"""

from __future__ import annotations

import math
from functools import lru_cache

from attrs import frozen

LEVELS = 32
"""The strongest level; 0 is nothing."""


@frozen
class Theme:
    """The two ends of the scale."""

    weak: float
    """Lightness of level 0."""
    strong: float
    """Lightness of the strongest level."""


LIGHT = Theme(weak=0.985, strong=0.36)
DARK = Theme(weak=0.225, strong=0.86)
INK = 0.566
"""Lightness where black and white ink read equally well; every shade has a contrast of at least 4.5 with its ink (WCAG 2.2, 1.4.3)."""
HUES = {"p": 255.0, "n": 50.0}
"""Hue of positive and negative numbers, in degrees."""


def level(value: float, top: float) -> int:
    """How strong a number is beside the strongest: 0 … 32, in proportion, so that what is nearly nothing has no shade. NaN is 0.

    >>> level(0.0, 1.0), level(0.01, 1.0), level(-0.5, 1.0), level(3.0, 1.0)
    (0, 0, 16, 32)
    """
    if not top > 0 or not value or math.isnan(value):
        return 0
    return min(LEVELS, int(abs(value) / top * LEVELS + 0.5))


@lru_cache(maxsize=1024)
def shade(level: int, sign: str = "p", theme: Theme = LIGHT) -> tuple[str, str]:
    """Background and ink of a level, as `#rrggbb`."""
    share = level / LEVELS
    lightness = theme.weak + share * (theme.strong - theme.weak)
    chroma = 0.004 + 0.116 * math.sin(0.68 * math.pi * share)
    return hexadecimal(lightness, chroma, HUES[sign]), "#000000" if lightness > INK else "#ffffff"


def hexadecimal(lightness: float, chroma: float, hue: float) -> str:
    """An OKLCH colour as `#rrggbb`, clipped to what a screen can show."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, channel)))):02x}" for channel in linear)


def _gamma(channel: float) -> float:
    """Linear light to sRGB."""
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


def stylesheet() -> str:
    """A class for each sign and level (`p0` … `p32`, `n1` … `n32`) that sets `--c` and `--t`; dark screens get the dark theme."""

    def rules(theme: Theme) -> str:
        named = [(sign, at, *shade(at, sign, theme)) for sign in HUES for at in range(LEVELS + 1)]
        return "".join(f".{sign}{at}{{--c:{back};--t:{ink}}}" for sign, at, back, ink in named)

    return f"{rules(LIGHT)}@media screen and (prefers-color-scheme:dark){{{rules(DARK)}}}"
