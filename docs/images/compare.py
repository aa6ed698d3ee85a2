"""Draws `compare.png` of the guide anew, from a real run: `python docs/images/compare.py REFERENCE CANDIDATE` (needs playwright and Chromium).

The picture is the upper part of the page that `llmtrace compare REFERENCE CANDIDATE --html FILE` writes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import llmtrace

SITE = "blocks.12.attn.v"
"""The site that is chosen, where there is one of the name."""
WIDTH = 1500


def main(reference: str, candidate: str) -> None:
    """Compare, write the page, and take the picture."""
    here = Path(__file__).with_suffix(".png")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        llmtrace.compare(reference, candidate).save_html(file)
        shoot(file, here)
    with Image.open(here) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(here, optimize=True)
    print(f"wrote {here} ({here.stat().st_size:,} bytes)")


def shoot(file: Path, out: Path) -> None:
    """The page from its top down to the curves, a little enlarged."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1400}, device_scale_factor=1.25, color_scheme="light"
        )
        page.goto(file.as_uri())
        page.locator(".picture .toggles button", has_text="inherited").click()
        row = page.locator(f'tr[data-site="{SITE}"]')
        if row.count():
            row.click()
        page.locator(".curve .toggles button").nth(1).click()
        page.mouse.move(0, 0)
        bottom = page.evaluate("document.querySelector('.bench').getBoundingClientRect().bottom")
        page.screenshot(path=out, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 14})
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
