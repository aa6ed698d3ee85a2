"""The hand-built model, as it is met through the reference backend, and a browser where one is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import llmtrace
from llmtrace.testing import handmade
from llmtrace.view.comparison import comparison_page
from tests.view.comparisons import comparison

PROMPT = "a b c a b"


class Tab:
    """One open page, and everything that it asked for or complained of."""

    def __init__(self, browser, file, **settings):
        self.requests, self.complaints = [], []
        self.page = browser.new_page(viewport={"width": 1240, "height": 900}, **settings)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.goto(file.as_uri())
        self.file = file

    def token(self, place):
        return self.page.locator(".token").nth(place)

    def numbers(self):
        """The exact score of every token, as the card says it on hover."""
        found = []
        for place in range(self.page.locator(".token").count()):
            self.token(place).hover()
            found.append(self.page.locator(".tip .exact").inner_text())
        return [float(text.replace("−", "-")) for text in found]

    def target(self):
        return int(self.page.locator('.token[aria-selected="true"]').get_attribute("data-position"))


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


@pytest.fixture
def show(chromium, tmp_path):
    tabs = []

    def opened(html, **settings):
        file = tmp_path / f"{len(tabs)}.html"
        if callable(html):
            html(file)
        else:
            file.write_text(html, "utf-8")
        tabs.append(Tab(chromium, file, **settings))
        return tabs[-1]

    yield opened
    for tab in tabs:
        assert tab.requests == [tab.file.as_uri()]
        assert tab.complaints == []
        tab.page.close()


@pytest.fixture(scope="session")
def document():
    """A comparison's, made of records."""
    return comparison().to_json()


@pytest.fixture
def tab(show, document):
    """Its page, open."""
    return show(comparison_page(document))
