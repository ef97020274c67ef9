"""`python -m tests.web.pictures [DIRECTORY]`: screenshots of the page with a day of data.

Those of the docs are `board.png` and `job.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.capacity import Capacity
from tests.web.browser import emulate, open_browser, until
from tests.web.demo import fill, talkative
from tests.web.site import open_site


def main(directory: Path) -> None:
    """Take all screenshots."""
    directory.mkdir(parents=True, exist_ok=True)
    with (
        open_site(guest_script=talkative, capacity=Capacity(jobs=4)) as site,
        open_browser() as browser,
    ):
        jobs = fill(site)
        run = jobs["unit"].rpartition(".")[0]
        pages = {
            "board": "/",
            "job": f"/jobs/{jobs['unit']}",
            "running": f"/jobs/{jobs['running']}",
            "infrastructure": "/?verdict=infrastructure",
            "run": f"/runs/{run}",
            "waiting": "/?state=submitted",
            "none": "/jobs/none",
        }
        for name, path in pages.items():
            for kind, dark, width in (("", False, 0), ("-dark", True, 0), ("-phone", True, 390)):
                emulate(browser, dark=dark, reset=True)
                emulate(browser, dark=dark, width=width, height=844)
                browser.get(f"{site.url}{path}")
                until(
                    browser, lambda b: b.execute_script("return document.readyState") == "complete"
                )
                if name in ("job", "running"):
                    until(
                        browser,
                        lambda b: b.execute_script("return !!document.querySelector('.line')"),
                    )
                browser.save_screenshot(str(directory / f"{name}{kind}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/pictures"))
