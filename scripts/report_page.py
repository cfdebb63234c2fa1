"""Open a report with headless Chromium, and write the screenshots of the documentation.

python -m scripts.report_page REPORT.html FOLDER

Needs Chromium on the PATH.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from scripts.mlflow_page import FLAGS

WIDTHS = (1280, 390)  # pixels: of a laptop and of a phone
HEIGHTS = {1280: 1500, 390: 1400}  # of the pictures


@contextmanager
def opened_report(file: Path, width: int, scripts: bool = True) -> Iterator[tuple[Page, list[str]]]:
    """The page in a window of this width, and what Chromium complains of or requests from the network, as it comes."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:100]}"))
            page.on("request", lambda request: complaints.extend(_outside(request.url)))
            page.goto(file.resolve().as_uri())
            yield page, complaints
        finally:
            browser.close()


def _outside(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [f"requested {url}"]


def main(file: Path, folder: Path) -> None:
    for width in WIDTHS:
        with opened_report(file, width) as (page, complaints):
            page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
            page.screenshot(path=folder / f"report_{width}.png")
            print(f"{width} pixels: {complaints or 'no complaints'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
