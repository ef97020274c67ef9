"""Debian's headless Chromium, without any network traffic of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

SECS = 30
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-proxy-server",
    "--hide-scrollbars",
)


@contextmanager
def open_browser(width: int = 1280, height: int = 900) -> Iterator[WebDriver]:
    """A browser with a new profile."""
    with tempfile.TemporaryDirectory(prefix="pikaci-chromium-") as profile:
        options = Options()
        options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
        for flag in (*_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(
            options=options,
            service=Service(shutil.which("chromedriver") or "/usr/bin/chromedriver"),
        )
        try:
            yield driver
        finally:
            driver.quit()


def until(driver: WebDriver, condition: Callable[[WebDriver], Any], what: str = "") -> Any:
    """Wait for a condition; return its value."""
    return WebDriverWait(driver, SECS, poll_frequency=0.05).until(condition, what)


def click(driver: WebDriver, selector: str) -> None:
    """Click on an element, which the page may replace at any time."""
    wait = WebDriverWait(driver, SECS, 0.05, [StaleElementReferenceException])
    wait.until(lambda b: b.find_element(By.CSS_SELECTOR, selector).click() is None)


def emulate(
    driver: WebDriver,
    *,
    width: int = 0,
    height: int = 0,
    dark: bool | None = None,
    script: bool = True,
    reset: bool = False,
) -> None:
    """Look like a phone of this size, or a desktop at night, or a browser without scripts."""
    if reset:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    if width:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True},
        )
    if dark is not None:
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
