"""The page in a browser: lists, follows and cancels jobs, whatever they print."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from orchestrator.service.web.rendering import ago
from orchestrator.service.web.static_files import version
from orchestrator.terminal import styled
from orchestrator.units import duration
from states.spec import JobSpec
from tests.samples import leave_artifacts
from tests.unit.orchestrator.test_terminal import HOSTILE as HOSTILE_BYTES
from tests.unit.orchestrator.test_terminal import TEXTS
from tests.web.browser import click, emulate, until
from tests.web.conftest import HERE, Stage, hosts
from tests.web.puppet import COMMAND

HOSTILE = b"<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def text(browser: WebDriver, css: str) -> str:
    """The text of an element; empty if there is none."""
    return str(
        browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", css)
    )


def lines(browser: WebDriver) -> list[str]:
    """The lines of the log, as text."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('.line > span')].map((line) => line.textContent)"
    )
    return found


def shows(browser: WebDriver, css: str, words: str) -> None:
    """Wait until an element contains this text."""
    until(browser, lambda _: words in text(browser, css), f"{words!r} in {css}")


def has_line(browser: WebDriver, line: str) -> None:
    """Wait until the log has this line."""
    until(browser, lambda _: line in lines(browser), f"the line {line!r}")


def test_the_board_shows_runs_as_they_come_and_end(browser: WebDriver, stage: Stage) -> None:
    """Without a reload, and with the important facts of each."""
    browser.get(stage.site.url)
    shows(browser, "#link", "live")
    browser.execute_script("window.here = true")
    assert "No runs yet" in text(browser, "main")

    good, live = stage.site.submit(good="echo fine", live=COMMAND)
    shows(browser, "#now", "live")
    shows(browser, "#runs article", "running")
    stage.puppet.end(stage.site, 7)

    shows(browser, "#runs article", "failed")
    assert "test command exited with 7" in text(browser, "#runs article")
    shows(browser, "#now", "No jobs are running")
    assert browser.execute_script("return window.here")
    assert [f"/jobs/{live}", f"/jobs/{good}"] == browser.execute_script(
        "return [...document.querySelectorAll('#runs .told a, #runs .chip')]"
        ".map((a) => a.getAttribute('href'))"
    )


def test_a_waiting_job_says_what_it_waits_for(browser: WebDriver, stage: Stage) -> None:
    """On the board, and on its own page."""
    stage.site.submit(a="sleep 9999", b="sleep 9999", c="sleep 9999", d="sleep 9999")
    (waiting,) = stage.site.submit(late="echo late")
    browser.get(stage.site.url)
    shows(browser, "#now", "waits for a slot: 4 of 4 are taken")

    browser.get(f"{stage.site.url}/jobs/{waiting}")

    shows(browser, "#job-head", "waits for a slot: 4 of 4 are taken")


def test_a_job_is_followed_to_its_end(browser: WebDriver, stage: Stage) -> None:
    """Its live log, its states, its verdict and its artifacts."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    stage.puppet.print(stage.site, b"one\ntw")
    has_line(browser, "tw")
    stage.puppet.print(stage.site, b"o\nthree\r50 %\r100 %\n")
    has_line(browser, "100 %")
    assert ["one", "two", "100 %"] == lines(browser)[1:]
    shows(browser, ".step.now", "running")

    stage.puppet.end(stage.site, 3)

    shows(browser, ".failure", "test command exited with 3")
    shows(browser, "#job-head .word", "failed")
    until(browser, lambda b: b.title.startswith("✗ failed · live"))
    assert not browser.find_elements(By.ID, "cancel")


def test_the_log_stays_at_its_end_until_one_scrolls_up(browser: WebDriver, stage: Stage) -> None:
    """And jumps to the end on request."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    stage.puppet.print(stage.site, b"".join(b"line %d\n" % n for n in range(300)))
    has_line(browser, "line 299")
    until(browser, below, "at the end")

    browser.execute_script("document.getElementById('log').scrollTop = 200")
    until(browser, lambda b: b.find_element(By.ID, "log-end").is_displayed())
    stage.puppet.print(stage.site, b"more\n")
    has_line(browser, "more")
    assert 200 == browser.execute_script("return document.getElementById('log').scrollTop")

    click(browser, "#log-end")
    until(browser, below, "at the end again")
    assert not browser.find_element(By.ID, "log-end").is_displayed()


def below(browser: WebDriver) -> bool:
    """Whether the end of the log is visible."""
    return bool(
        browser.execute_script(
            "const log = document.getElementById('log');"
            "return log.scrollTop > 0 && log.scrollHeight - log.clientHeight - log.scrollTop < 2"
        )
    )


def test_a_job_is_cancelled(browser: WebDriver, stage: Stage) -> None:
    """With two clicks, and the page shows the progress."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    shows(browser, ".step.now", "running")
    click(browser, "#cancel summary")
    click(browser, "#cancel .danger")

    shows(browser, "#job-head .word", "cancelled")
    shows(browser, ".failure", "cancelled: asked for on the page")
    assert "cancelled" == stage.site.ended(job).verdict


@pytest.mark.lost
def test_a_lost_connection_is_made_again(browser: WebDriver, stage: Stage) -> None:
    """The log continues at the same byte, with what was printed meanwhile; so do the states."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    stage.puppet.print(stage.site, b"one\nhalf a li" + b"\xc3")
    has_line(browser, "half a li\ufffd")

    stage.site.close()
    shows(browser, "#link", "connection lost")
    shows(browser, "#log-state", "connection lost")
    stage.puppet.print(stage.site, b"\xa9ne\nthree\n")
    stage.site.listen()

    has_line(browser, "three")
    shows(browser, "#link", "live")
    stage.puppet.print(stage.site, b"four\n")
    has_line(browser, "four")
    assert ["one", "half a li\N{LATIN SMALL LETTER E WITH ACUTE}ne", "three", "four"] == lines(
        browser
    )[1:]
    stage.puppet.end(stage.site)
    shows(browser, "#job-head .word", "passed")


def test_what_a_job_prints_is_text(browser: WebDriver, stage: Stage) -> None:
    """Markup in its log, its artifacts' names, its message: nothing runs, nothing is fetched."""
    (job,) = stage.site.submit(live=COMMAND)
    stage.puppet.print(stage.site, HOSTILE + b"\n</pre>" + HOSTILE + b"\n")
    stage.puppet.end(stage.site, 1)
    stage.site.ended(job)
    leave_artifacts(stage.site.log(job).parent, {"<img src=x onerror=alert(1)>.html": HOSTILE})

    browser.get(f"{stage.site.url}/jobs/{job}")

    has_line(browser, HOSTILE.decode())
    has_line(browser, "</pre>" + HOSTILE.decode())
    assert "<img src=x onerror=alert(1)>.html" in text(browser, ".artifacts")
    assert "owned" not in browser.title
    assert not browser.find_elements(By.CSS_SELECTOR, "main script, main img")


def test_colours_are_those_of_a_terminal(browser: WebDriver, stage: Stage) -> None:
    """16, 256 and all; other sequences are dropped."""
    (job,) = stage.site.submit(live=COMMAND)
    stage.puppet.print(
        stage.site,
        b"\x1b[1;31mbold red\x1b[0m plain\n"
        b"\x1b[38;5;196mcube\x1b[39m\x1b[48;2;1;2;3mtrue\x1b[m\n"
        b"\x1b[3;4;9mall\x1b[0m\x1b]0;title\x07\x1b[2K\x1b[10;20H\x00gone\n"
        b"\x1b[7;32mreverse\x1b[0m\x1b[38;2;9mshort\n",
    )
    browser.get(f"{stage.site.url}/jobs/{job}")
    until(browser, lambda _: len(lines(browser)) > 4)

    def style(line: int, piece: int) -> Any:
        return browser.execute_script(
            "const span = document.querySelectorAll('.line > span')[arguments[0]].children[arguments[1]];"
            "const s = getComputedStyle(span);"
            "return [span.textContent, s.color, s.backgroundColor, s.fontWeight, s.fontStyle,"
            " s.textDecorationLine]",
            line,
            piece,
        )

    clear, grey = "rgba(0, 0, 0, 0)", "rgb(214, 219, 224)"
    assert ["bold red", "rgb(255, 123, 114)", clear, "700", "normal", "none"] == style(1, 0)
    assert ["cube", "rgb(255, 0, 0)", clear, "400", "normal", "none"] == style(2, 0)
    assert ["true", grey, "rgb(1, 2, 3)", "400", "normal", "none"] == style(2, 1)
    assert ["all", grey, clear, "400", "italic", "underline line-through"] == style(3, 0)
    assert "allgone" == lines(browser)[3]
    assert "rgb(31, 107, 54)" == style(4, 0)[2]
    assert "reverseshort" == lines(browser)[4]


def test_a_page_shows_of_a_line_what_a_terminal_shows(browser: WebDriver, stage: Stage) -> None:
    """Two filters, in two languages: the same text comes out of both."""
    (job,) = stage.site.submit(live=COMMAND)
    printed = [hostile for hostile, _ in HOSTILE_BYTES] + [text.encode() for text in TEXTS]
    printed = [line for line in b"\n".join(printed).split(b"\n") if b"\x1b[1G" not in line]
    browser.get(f"{stage.site.url}/jobs/{job}")

    shown = browser.execute_async_script(
        "const [address, lines, done] = arguments;"
        "import(address).then(({ parse }) => done("
        "  lines.map((line) => parse(line).pieces.map((piece) => piece.text).join(''))));",
        f"/static/{version()}/ansi.js",
        [line.decode("utf-8", "replace") for line in printed],
    )

    assert [styled(line, colours=False) for line in printed] == shown


def test_times_pass_on_the_page_in_the_words_it_was_made_with(
    browser: WebDriver, stage: Stage
) -> None:
    """Two languages: the same text comes out of both, at every edge between two units."""
    (job,) = stage.site.submit(live=COMMAND)
    browser.get(f"{stage.site.url}/jobs/{job}")
    edges = (0, 0.9995, 1, 4.25, 9.95, 59.5, 3599.5, 7200, 172_770, 172_800, 259_200, 1e7)
    secs = [edge + step for edge in edges for step in (-0.06, -0.0005, 0, 0.0005, 0.06, 31)]

    shown = browser.execute_async_script(
        "const [address, secs, done] = arguments;"
        "import(address).then(({ age, duration }) => done(secs.map((s) => [age(s), duration(s)])));",
        f"/static/{version()}/times.js",
        secs,
    )

    assert [[ago(one), duration(one)] for one in secs] == shown


def test_html_of_a_job_runs_nothing_in_our_origin(browser: WebDriver, stage: Stage) -> None:
    """It is shown, with its own styles, in an origin that is nobody's."""
    (job,) = stage.site.submit(done="echo fine")
    stage.site.ended(job)
    page = (
        b"<title>report</title><style>h1 { color: rgb(1, 2, 3) }</style><h1>report</h1>" + HOSTILE
    )
    leave_artifacts(stage.site.log(job).parent, {"report.html": page})
    browser.get(f"{stage.site.url}/jobs/{job}")
    click(browser, ".artifacts a")
    until(browser, lambda b: b.title == "report")

    color = "return getComputedStyle(document.querySelector('h1')).color"
    assert "rgb(1, 2, 3)" == browser.execute_script(color)
    assert "null" == browser.execute_script("return window.origin")
    assert "report" == browser.title
    # What the browser refused is in its log.
    assert HERE >= hosts(browser)
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert any("sandboxed" in message for message in refused)


GROUPS = b"""before
::group::Install
one
##[group]inner
two
##[endgroup]
::endgroup::
section_start:1560896352:tests[collapsed=true]\r\x1b[0K\x1b[1mRun tests\x1b[0m
E   assert 1 == 2
section_end:1560896353:tests\r\x1b[0K
"""


def shown_lines(browser: WebDriver) -> list[str]:
    """The lines of the log that are not folded away."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('.line:not([hidden]) > span')]"
        ".map((line) => line.textContent)"
    )
    return found


def test_parts_of_a_log_fold(browser: WebDriver, stage: Stage) -> None:
    """With the marks of two services; to jump into a part opens it. Lines have times, and wrap."""
    (job,) = stage.site.submit(live=COMMAND)
    stage.puppet.print(stage.site, GROUPS + b"x" * 5000 + b"\n")
    stage.puppet.end(stage.site, 1)
    stage.site.ended(job)
    browser.get(f"{stage.site.url}/jobs/{job}")
    has_line(browser, "before")
    log = "document.getElementById('log')"

    groups = ["before", "Install", "one", "inner", "two", "Run tests"]
    assert groups == shown_lines(browser)[1:-1]
    click(browser, "#log-fold")
    assert ["before", "Install", "Run tests"] == shown_lines(browser)[1:-1]
    click(browser, "#log-error")
    until(browser, lambda _: "E   assert 1 == 2" in shown_lines(browser))
    assert ["before", "Install", "Run tests", "E   assert 1 == 2"] == shown_lines(browser)[1:-1]
    assert "E   assert 1 == 2" in text(browser, ".line.here")

    assert browser.execute_script(f"return {log}.scrollWidth <= {log}.clientWidth")
    click(browser, "#log-wrap")
    assert browser.execute_script(f"return {log}.scrollWidth > {log}.clientWidth")
    click(browser, "#log-times")
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".timed .line > a[data-t*=':']"))
    browser.refresh()
    has_line(browser, "before")
    assert browser.find_elements(By.CSS_SELECTOR, "#log.long.timed")
    browser.execute_script("localStorage.clear()")


def test_a_search_goes_through_the_whole_log(browser: WebDriver, stage: Stage) -> None:
    """Also outside of the shown part; colours do not hide matches."""
    (job,) = stage.site.submit(done="echo fine")
    stage.site.ended(job)
    stage.site.log(job).write_bytes(
        b"".join(
            b"line %d%s\n" % (n, b" an Er\x1b[31mror\x1b[0m here" if n % 40_000 == 7 else b"")
            for n in range(1, 100_001)
        )
    )
    browser.get(f"{stage.site.url}/jobs/{job}")
    has_line(browser, "line 100000")
    assert 5000 == len(lines(browser))

    query = browser.find_element(By.ID, "log-query")
    query.send_keys("error")
    shows(browser, "#log-count", "1 of 3")
    shows(browser, ".line.here", "line 7 an Error here")
    query.send_keys(Keys.ENTER)
    shows(browser, ".line.here", "line 40007 an Error here")
    assert browser.find_element(By.ID, "L40007").is_displayed()
    click(browser, "#log-prev")
    shows(browser, ".line.here", "line 7 an Error here")
    query.send_keys("x")
    shows(browser, "#log-count", "none")


def test_a_huge_log_is_shown_in_parts(browser: WebDriver, stage: Stage) -> None:
    """First the end, then other parts on request; huge lines are cut."""
    (job,) = stage.site.submit(done="echo fine")
    stage.site.ended(job)
    with stage.site.log(job).open("wb") as log:
        log.writelines(b"line %d\n" % n for n in range(1, 1_000_001))
        log.write(b"x" * 50_000_000 + b"\n")
        log.writelines(b"line %d\n" % n for n in range(1_000_002, 1_030_001))
    browser.get(f"{stage.site.url}/jobs/{job}")
    has_line(browser, "line 1030000")
    assert "1030000" == browser.execute_script(
        "return document.querySelector('.line:last-child').id.slice(1)"
    )

    click(browser, ".more")
    has_line(browser, "line 1022501")
    assert 5000 == len(lines(browser))
    browser.execute_script("location.hash = '#L1000001'")
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "#L1000001.here"))
    giant = text(browser, "#L1000001 span")
    assert giant.startswith("x" * 4000 + " … ")
    # Numbers of seven digits do not cover the text.
    assert browser.execute_script(
        "const a = document.querySelector('#L1000001 > a');"
        "const wide = document.createElement('span'); wide.textContent = '1000001';"
        "a.append(wide); const fits = wide.offsetWidth < a.clientWidth; wide.remove(); return fits;"
    )
    assert "49,996,000 more bytes" in giant

    browser.execute_script("location.hash = '#L500000'")
    shows(browser, "#L500000.here", "line 500000")
    assert len(lines(browser)) <= 10_000
    click(browser, "#log-end")
    has_line(browser, "line 1030000")


@pytest.mark.lost
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: WebDriver, stage: Stage) -> None:
    """Whatever the names are."""
    name = "a-very-long-name-of-a-job" * 4
    (job,) = stage.site.submit(**{name: f"echo {'wide' * 100}; exit 3"})
    stage.site.ended(job)
    emulate(browser, width=390, height=844)
    run = job.rpartition(".")[0]
    for path in ("/", f"/runs/{run}", f"/jobs/{job}", "/?verdict=failed", "/jobs/none"):
        browser.get(f"{stage.site.url}{path}")
        until(browser, lambda b: b.execute_script("return document.readyState") == "complete")
        assert 390 == browser.execute_script("return document.documentElement.scrollWidth"), path


def test_the_mark_of_a_running_job_turns_in_its_place(browser: WebDriver, stage: Stage) -> None:
    """In the drawing of the jobs around one, too: at every quarter of a turn."""
    specs = {"runs": JobSpec(command="sleep 9999"), "waits": JobSpec(command="x", needs=("runs",))}
    waits = stage.site.submit_specs(specs)[1]
    browser.get(f"{stage.site.url}/jobs/{waits}")
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".graph .shape.running"))
    for quarter in range(4):
        inside = browser.execute_script(
            """
            for (const turn of document.getAnimations()) {
              turn.pause();
              turn.currentTime = arguments[0] * 600;
            }
            const mark = document.querySelector(".graph .shape.running");
            const [inner, outer] = [mark, mark.closest("a").querySelector("rect")].map(
              (one) => one.getBoundingClientRect());
            return outer.left <= inner.left && inner.right <= outer.right
              && outer.top <= inner.top && inner.bottom <= outer.bottom;
            """,
            quarter,
        )
        assert inside, quarter


def test_day_and_night(browser: WebDriver, stage: Stage) -> None:
    """The page has the colours that the reader's system asks for."""

    def paper() -> Any:
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    browser.get(stage.site.url)
    emulate(browser, dark=False)
    day = paper()
    emulate(browser, dark=True)

    assert ("rgb(245, 246, 248)", "rgb(17, 20, 23)") == (day, paper())


def test_without_scripts_it_is_all_there(browser: WebDriver, stage: Stage) -> None:
    """Everything except live updates: the end of the log, and a form that cancels."""
    emulate(browser, script=False)
    (job,) = stage.site.submit(live=COMMAND)
    stage.puppet.print(stage.site, b"one\n\x1b[31mtwo\x1b[0m <b>\n")
    until(
        browser,
        lambda _: (
            b"two" in stage.site.log(job).read_bytes() if stage.site.log(job).exists() else False
        ),
    )
    browser.get(f"{stage.site.url}/jobs/{job}")
    assert "one\ntwo <b>" in browser.find_element(By.ID, "log").text

    click(browser, "#cancel summary")
    click(browser, "#cancel .danger")
    assert "cancelled" == stage.site.ended(job).verdict
    browser.get(f"{stage.site.url}/jobs/{job}")

    assert "cancelled: asked for on the page" in browser.find_element(By.ID, "job-head").text


@pytest.mark.lost
def test_what_is_not_there_is_said_on_a_page(browser: WebDriver, stage: Stage) -> None:
    """With a way out."""
    browser.get(f"{stage.site.url}/jobs/none")

    assert "there is no job 'none'" in text(browser, "h1")
    browser.find_element(By.LINK_TEXT, "back to the board").click()
    shows(browser, "#now", "No jobs are running")
