"""The hand-built model, as it is met through the reference backend, and a browser where one is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import llmtrace
from llmtrace.testing import handmade

PROMPT = "a b c a b"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    directory = handmade.write(tmp_path_factory.mktemp("handmade"))
    with llmtrace.open(f"reference:{directory}") as opened:
        yield opened


@pytest.fixture(scope="session")
def influence(model):
    return model.influence(PROMPT)


@pytest.fixture(scope="session")
def lens(model):
    return model.lens(PROMPT)


@pytest.fixture(scope="session")
def trace(model):
    return model.trace(PROMPT)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium that may not reach the network."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with playwright.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()
