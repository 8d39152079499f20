"""Chromium as the page's users have it: pages, and what they should not have said or asked for."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.conftest import PATIENCE

MILLISECONDS = 1000 * PATIENCE  # until what should be seen is missed
# The first draws pages as the others do, without windows, and takes half as much of a core.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Fewer processes: a page takes a third less of a core without one that plays a GPU, one for the
# network, and one for each site.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-software-rasterizer", "--in-process-gpu"),
    *("--enable-features=NetworkServiceInProcess2", "--disable-site-isolation-trials"),
    *("--process-per-site", "--renderer-process-limit=1"),
)
COUNT_TILES = """() => {
    window.made = 0;
    new MutationObserver(changes => {
        for (const change of changes) window.made += change.addedNodes.length;
    }).observe(document.getElementById("pictures"), { childList: true });
}"""
NEEDED = "PAGE_TESTS_NEED_A_BROWSER"  # set where a missing browser is no excuse


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of the system; a test is skipped where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=FLAGS, timeout=MILLISECONDS
        )
        yield browser
        browser.close()


class Watched:
    """Pages of a browser, with what was wrong in them.

    Attributes:
        problems: errors and warnings of scripts, and requests to anybody but the page's server.
        asked: paths of all requests, in their order.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.problems: list[str] = []
        self.asked: list[str] = []

    def open(
        self,
        url: str,
        width: int = 1280,
        height: int = 900,
        own: str | None = None,
        constants: Mapping[str, int] = MappingProxyType({}),
        **options: Any,
    ) -> Page:
        """Open a page.

        Args:
            own: where it may ask for more, by default below its URL.
            constants: values that its scripts have here, where their own are a matter of time.
        """
        context = self._browser.new_context(viewport={"width": width, "height": height}, **options)
        self._contexts.append(context)
        if constants:
            context.route("**/*.js", partial(_with_constants, constants))
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        page.on("request", lambda request: self._check(request.url, own or url))
        page.goto(url)
        return page

    def _note(self, message: Any) -> None:
        # What the server refuses, or that it is gone, is a line of the browser's own.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def _check(self, asked: str, url: str) -> None:
        self.asked.append(asked.removeprefix(url))
        if not asked.startswith((url, "blob:", "data:")):
            self.problems.append(f"asked for {asked}")

    def close(self) -> None:
        for context in self._contexts:
            for page in context.pages:
                page.unroute_all(behavior="ignoreErrors")  # an answer may be on its way
            context.close()


def _with_constants(constants: Mapping[str, int], route: Route) -> None:
    answer = route.fetch()
    text = answer.text()
    for name, value in constants.items():
        text = re.sub(rf"(?m)^const {name} = [\d_]+;", f"const {name} = {value};", text)
    route.fulfill(response=answer, body=text)


def picture(page: Page, prompt: str) -> Locator:
    """The picture of the gallery that was drawn from a prompt."""
    return page.locator("#pictures").get_by_role("img", name=prompt, exact=True)


def shown(image: Locator) -> None:
    """Wait until a picture has pixels."""
    image.scroll_into_view_if_needed()
    expect(image).not_to_have_js_property("naturalWidth", 0)
