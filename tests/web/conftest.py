"""A browser for all tests of the page. Each test checks what a page must never do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.web.browser import emulate, open_browser
from tests.web.puppet import Puppet
from tests.web.site import Site, open_site

HERE = {"127.0.0.1", ""}


@pytest.fixture(scope="session")
def chromium() -> Iterator[WebDriver]:
    with open_browser() as driver:
        yield driver


@dataclass
class Stage:
    """A site, with a job that does what the test says."""

    site: Site
    puppet: Puppet


@pytest.fixture
def stage() -> Iterator[Stage]:
    puppet = Puppet()
    with open_site(guest_script=puppet.script) as site:
        yield Stage(site, puppet)


@pytest.fixture
def browser(
    stage: Stage, chromium: WebDriver, request: pytest.FixtureRequest
) -> Iterator[WebDriver]:
    """The browser, in a new tab. Checks that pages contact no other host, and log no errors.

    The marker `lost` says that something is not there in the test, of which a browser tells.
    """
    before = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    drain(chromium)
    yield chromium
    requests = hosts(chromium)
    errors = [
        entry["message"]
        for entry in chromium.get_log("browser")
        if entry["level"] == "SEVERE" and not _allowed(entry["message"], request)
    ]
    emulate(chromium, reset=True)
    chromium.close()
    chromium.switch_to.window(before)

    assert [] == errors
    assert requests <= HERE


def _allowed(message: str, request: pytest.FixtureRequest) -> bool:
    lost = request.node.get_closest_marker("lost") is not None
    return lost and ("net::ERR_" in message or "status of 4" in message)


def drain(driver: WebDriver) -> None:
    """Clear the logs."""
    driver.get_log("browser")
    driver.get_log("performance")


def hosts(driver: WebDriver) -> set[str]:
    """The hosts that pages have contacted since the last call."""
    found = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(urlsplit(message["params"]["request"]["url"]).hostname or "")
    return found
