"""On TCP, a browser logs in with the token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from orchestrator.service import token as tokens
from orchestrator.service.token import RequireToken
from tests.web.browser import click, until
from tests.web.conftest import Stage
from tests.web.puppet import COMMAND, Puppet
from tests.web.site import open_site

TOKEN = "a-token-of-some-length"
HTML = {"Accept": "text/html"}


@pytest.fixture
def stage() -> Iterator[Stage]:
    puppet = Puppet()
    with open_site(partial(RequireToken, token=TOKEN), guest_script=puppet.script) as site:
        yield Stage(site, puppet)


@pytest.fixture
def http(stage: Stage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stage.site.url) as client:
        yield client


def log_in(
    http: httpx.Client, stage: Stage, token: str = TOKEN, there: str = "/"
) -> httpx.Response:
    """Send the form, as a browser does."""
    headers = {"Origin": stage.site.url, **HTML}
    return http.post("/login", data={"token": token, "next": there}, headers=headers)


@pytest.mark.lost
def test_a_browser_logs_in_and_out(browser: WebDriver, stage: Stage) -> None:
    """It gets to the page it asked for, follows a job there, and cancels it."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    form(browser, "wrong-token-of-some-length")
    until(browser, lambda b: "This token is wrong" in b.find_element(By.TAG_NAME, "main").text)
    form(browser, TOKEN)
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".step.now.running"))
    until(browser, lambda b: b.find_element(By.ID, "link").text == "live")
    cookie = browser.get_cookies()[0]
    assert (True, "Strict") == (cookie["httpOnly"], cookie["sameSite"])
    assert TOKEN not in cookie["value"]

    click(browser, "#cancel summary")
    click(browser, "#cancel .danger")
    assert "cancelled" == stage.site.ended(job).verdict

    click(browser, ".top button")
    until(browser, lambda b: b.find_elements(By.NAME, "token"))
    assert [] == browser.get_cookies()


def form(browser: WebDriver, token: str) -> None:
    field = until(browser, lambda b: b.find_element(By.NAME, "token"))
    field.send_keys(token)
    field.submit()


def test_who_has_not_logged_in_sees_the_form_and_nothing_else(
    stage: Stage, http: httpx.Client
) -> None:
    """A program gets the problem document; styles and scripts are public."""
    person, program = http.get("/?name=x", headers=HTML), http.get("/")
    styled = http.get(person.text.split('rel="stylesheet" href="')[1].split('"')[0])

    assert (401, True) == (person.status_code, 'value="/?name=x"' in person.text)
    assert (401, "application/problem+json") == (
        program.status_code,
        program.headers["content-type"],
    )
    assert 200 == styled.status_code
    assert 401 == http.post("/jobs/x/cancel", headers={"Origin": stage.site.url}).status_code
    assert 401 == http.get("/v1/jobs", headers=HTML | {"Cookie": "pikaci=x"}).status_code


def test_the_cookie_is_good_for_its_time_and_its_token(
    stage: Stage, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives the service, and nobody can forge or extend one."""
    ((name, value),) = log_in(http, stage).cookies.items()
    end, _, proof = value.partition("-")

    def status(cookie: str) -> int:
        with httpx.Client(base_url=stage.site.url) as other:
            return other.get("/v1/jobs", headers={"Cookie": cookie.encode("latin-1")}).status_code

    assert 200 == status(f"{name}={value}")
    stage.site.close()
    stage.site.listen()
    assert 200 == status(f"{name}={value}")
    forged = (
        f"{int(end) + 1}-{proof}",
        f"{end}-{'0' * 64}",
        proof,
        "",
        "\u00e9".encode().decode("latin-1"),
    )
    assert {401} == {status(f"{name}={cookie}") for cookie in forged}
    monkeypatch.setattr(tokens.time, "time", lambda: float(end) + 1)
    assert 401 == status(f"{name}={value}")


def test_a_form_of_another_page_is_refused(stage: Stage, http: httpx.Client) -> None:
    """Also from another port of this host, which gets the same cookies."""
    log_in(http, stage)
    (job,) = stage.site.submit(live=COMMAND)
    for origin in ("http://127.0.0.1:1", "null", ""):
        headers = {"Origin": origin} if origin else {}
        assert 403 == http.post(f"/jobs/{job}/cancel", headers=headers).status_code
        assert 403 == http.post(f"/v1/jobs/{job}/cancel", json={}, headers=headers).status_code
        assert 403 == http.post("/login", data={"token": TOKEN}, headers=headers).status_code
        assert 403 == http.post("/logout", headers=headers).status_code
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = http.post(f"/v1/jobs/{job}/cancel", json={"now": True}, headers=bearer)
    assert "cancelled" == answer.json()["verdict"]


@pytest.mark.parametrize("there", ["//evil.example", "/\\evil.example", "http://evil.example", "x"])
def test_a_login_leads_nowhere_else(stage: Stage, http: httpx.Client, there: str) -> None:
    """To a page of this service."""
    assert "/" == log_in(http, stage, there=there).headers["location"]


def test_a_form_that_is_too_large_is_refused(stage: Stage, http: httpx.Client) -> None:
    """Before it is read."""
    assert 413 == log_in(http, stage, token="x" * 10_000).status_code
