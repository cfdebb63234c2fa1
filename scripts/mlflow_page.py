"""Open a study in MLflow's page with headless Chromium, and write the screenshots of the documentation.

python scripts/mlflow_page.py STUDY FOLDER

The servers must be up (`bdqm-tune services up`); needs Chromium on the PATH.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import optuna
from optuna.trial import TrialState
from playwright.sync_api import Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeout

from bdqm_tune.services.connection import Connection, find_stores, read_connection
from bdqm_tune.study.study import EXPERIMENT, RUN_ID, load_study

# Without them Chromium contacts Google's hosts, and cannot run as root.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# What a user has closed once: the assistant's panel.
SEEN = {
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.workflowType_v1": '"machine_learning"',
}
WAIT = 60_000  # ms; the page is large, and the machine may be busy
CURVES = 8  # in one picture


@contextmanager
def opened_page(connection: Connection, height: int = 800) -> Iterator[Page]:
    """A page that is logged in to the MLflow server."""
    password = {"username": connection.tracking_username, "password": connection.tracking_password}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = browser.new_context(
            viewport={"width": 1400, "height": height},
            http_credentials=password,  # type: ignore[arg-type]
            ignore_https_errors=True,
        )
        context.set_default_timeout(WAIT)
        expect.set_options(timeout=WAIT)
        for key, value in SEEN.items():
            context.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
        try:
            yield context.new_page()
        finally:
            browser.close()


def show_runs(page: Page, uri: str, experiment_id: str) -> None:
    """The experiment's list of runs, with the trials under the study's newest run."""
    page.goto(f"{uri}/#/experiments/{experiment_id}/runs?workflowType=machine_learning")
    plus = page.get_by_role("gridcell").get_by_role("button").first  # the plus sign of the study
    try:
        plus.click(timeout=WAIT / 2)
    except PageTimeout:  # seen once, for a minute: MLflow's page does not ask again by itself
        print(f"the list of runs did not come; the page had: {page.inner_text('body')[:2000]}", file=sys.stderr)
        page.reload()
        plus.click()
    expect(page.get_by_text(re.compile(r"^trial-\d{3}$")).first).to_be_visible()


def show_curves(page: Page, uri: str, experiment_id: str, run_ids: Sequence[str], metric: str) -> None:
    """One metric of several runs against the epoch."""
    query = {
        "runs": json.dumps(list(run_ids)),
        "metric": json.dumps(metric),
        "experiments": json.dumps([experiment_id]),
        "plot_metric_keys": json.dumps([metric]),
    }
    page.goto(f"{uri}/#/metric?{urlencode(query)}")
    page.get_by_text("Step", exact=True).click()
    expect(page.get_by_text(f"({metric})")).to_have_count(len(run_ids))  # in the legend
    expect(page.locator(".js-plotly-plot .xtitle")).to_have_text("Step")


def study_runs(study: optuna.Study) -> tuple[str, list[str]]:
    """Experiment and runs of a study's complete and pruned trials."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return study.user_attrs[EXPERIMENT], [trial.user_attrs[RUN_ID] for trial in study.get_trials(states=states)]


def main(study: str, folder: Path) -> None:
    stores = find_stores()
    if stores.connection_file is None:
        sys.exit("the servers are down; `bdqm-tune services up` starts them")
    connection = read_connection(stores.connection_file)
    experiment_id, run_ids = study_runs(load_study(stores, study))
    with opened_page(connection) as page:
        show_runs(page, connection.tracking_uri, experiment_id)
        page.wait_for_timeout(2000)  # for the fonts
        page.screenshot(path=folder / "mlflow_runs.png")
        show_curves(page, connection.tracking_uri, experiment_id, run_ids[:CURVES], "val_energy_mae")
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / "mlflow_curves.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
