"""Ten screenshots for auditors: MLflow, ZenML's dashboard and the comparison of two versions, taken again.

    image-finder demo --home HOME
    image-finder pipeline run training --config demo --set training.epochs=18 --home HOME
    python -m tests.audit_screenshots HOME [--to infra/screenshots]

Look at them before you commit them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from image_finder.model_registry import names
from image_finder.model_registry.registry import Registry
from image_finder.pipelines.stores import EXPERIMENT_NAME, Home
from tests.screenshots import HEIGHT, WIDTH, save, serving

MODEL = "image-finder-demo"
CHARTS = "(test/t2i_r1|test/t2i_r5|test/t2i_r10|train/loss|train/val_mean_recall|train/val_t2i_r1)$"
DRAWING_S = 4  # charts, frames and the graph; MLflow's pages request something all the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="Home with two versions of the demo's model.")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "infra" / "screenshots")
    given = parser.parse_args()
    home = given.home.resolve()
    given.to.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce").new_page()
        page.set_default_timeout(40_000)
        with serving("ui", "--no-open", "--home", home, ready="/health") as server:
            photograph_mlflow(page, server, home, given.to)
        with serving("ui", "--zenml", "--no-open", "--home", home, ready="/health") as server:
            photograph_zenml(page, server, given.to)
        photograph_comparison(page, home, given.to)
        browser.close()


def photograph_mlflow(page: Any, server: str, home: Path, folder: Path) -> None:
    registry = Registry(Home(home).mlflow_uri)
    newest = registry.versions(MODEL)[0]
    runs = registry.client.get_experiment_by_name(EXPERIMENT_NAME).experiment_id
    ledger = registry.client.get_experiment_by_name(names.ledger_experiment(MODEL)).experiment_id
    run = f"/#/experiments/{runs}/runs/{newest.run_id}"
    for name, address, shown in (
        ("runs", f"/#/experiments/{runs}/runs?workflowType=machine_learning", "training-demo"),
        ("run", run, "Datasets"),
        ("metrics", f"{run}/model-metrics", "promotion"),
        ("promotion", f"{run}/artifacts/{names.PROMOTION_ARTIFACT}", "promotion.html"),
        ("model", f"/#/models/{MODEL}", "Version 2"),
        ("version", f"/#/models/{MODEL}/versions/{newest.version}", "of 100 images first"),
        ("ledger", f"/#/experiments/{ledger}/runs?workflowType=machine_learning", "not promoted"),
    ):
        page.goto(f"{server}{address}")
        page.reload()  # an address with another fragment alone loads nothing
        page.get_by_text(shown).first.wait_for()
        time.sleep(DRAWING_S)
        for each in page.get_by_role("button", name="Close").all():  # of MLflow's assistant
            each.click()
        if name == "metrics":
            page.get_by_placeholder("Search metric charts").fill(CHARTS)
            time.sleep(DRAWING_S)
        save(page.screenshot(), folder / f"mlflow_{name}.png")


def photograph_zenml(page: Any, server: str, folder: Path) -> None:
    page.goto(f"{server}/projects/default/runs")
    page.get_by_role("link", name="finder_training").first.wait_for()
    page.goto(server + page.locator("a[href*='/runs/']", has_text="training").first.get_attribute("href"))
    page.get_by_text("promotion_decision", exact=True).first.wait_for()
    time.sleep(DRAWING_S)
    save(page.screenshot(), folder / "zenml_run.png")
    page.get_by_text("promotion_decision", exact=True).first.click(force=True)
    page.get_by_role("tab", name="Visualization").click()
    page.get_by_role("button", name="Load Preview").click()
    page.frame_locator("iframe").get_by_role("heading", name="Checks").wait_for()
    time.sleep(DRAWING_S)
    save(page.screenshot(), folder / "zenml_promotion.png")


def photograph_comparison(page: Any, home: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "comparison.html"
        words = ["models", "compare", "2", "1", "--model", MODEL, "--home", str(home), "--html", str(path)]
        subprocess.run([sys.executable, "-m", "image_finder", *words], check=True, stdout=subprocess.DEVNULL)
        page.goto(path.as_uri())
        page.get_by_role("heading", name="Queries on which").evaluate("heading => heading.scrollIntoView()")
        save(page.screenshot(), folder / "comparison.png")


if __name__ == "__main__":
    main()
