"""Draws `influence.png` of the README anew, from a real run: `python docs/images/influence.py MODEL` (needs playwright and Chromium).

The picture is the upper part of the page that `llmtrace influence MODEL "The capital of France is" --html FILE` writes, on the tab `dla`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import llmtrace
from llmtrace.influence import picture
from llmtrace.view.html import save_page

PROMPT = "The capital of France is"
METHODS = ("alti", "dla", "attention")
WIDTH = 900


def main(source: str) -> None:
    """Open the model, write the page, and take the picture."""
    here = Path(__file__).with_suffix(".png")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        with llmtrace.open(source) as model:
            influences, lens = picture(model, PROMPT, METHODS, -1, None, None)
        save_page(file, influences, lens)
        shoot(file, here)
    with Image.open(here) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(here, optimize=True)
    print(f"wrote {here} ({here.stat().st_size:,} bytes)")


def shoot(file: Path, out: Path) -> None:
    """The page from its top down to the heads, at twice the resolution."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 1400}, device_scale_factor=2, color_scheme="light")
        page.goto(file.as_uri())
        page.get_by_role("tab", name="dla").click()
        page.mouse.move(0, 0)
        bottom = page.evaluate("document.querySelector('section.heads').getBoundingClientRect().bottom")
        page.screenshot(path=out, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 14})
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
