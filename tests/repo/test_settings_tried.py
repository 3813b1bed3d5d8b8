"""The settings tried for recall: the commands beside the table are configurations that can still be run."""

import re

from image_finder.pipelines import run_config
from tests.benchmarks import bench_recall
from tests.support.checkout import CHECKOUT

BENCHMARKS = CHECKOUT / "tests" / "benchmarks"
COMMANDS = dict(
    re.findall(r"^(\w[\w ]*): (--(?:config|set) .*)$", (BENCHMARKS / "README.md").read_text(encoding="utf-8"), re.M)
)


def checked(words):
    options = bench_recall.arguments().parse_args(["DATA", *words.split()])
    values = run_config.load("training", options.config)
    return run_config.checked("training", run_config.override(values, options.assignments))


def test_each_row_has_a_different_setting_that_can_be_run():
    assert len(COMMANDS) >= 8
    rows = [checked(words) for words in ("", *COMMANDS.values())]
    settings = [tuple(str(row[part]) for part in ("dataset", "model", "training")) for row in rows]
    assert len(set(settings)) == len(settings)
    assert all(row["dataset"].name == "flickr8k" for row in rows)


def test_a_row_differs_from_the_one_before_it_as_the_table_says():
    of = {name: checked(words) for name, words in COMMANDS.items()}
    assert of["plain"]["model"].image.trained_stages == 0
    assert of["last two stages"]["model"].image.trained_stages == 2
    assert of["last two stages"]["model"].image.trunk == of["plain"]["model"].image.trunk == "tf_efficientnet_lite0"
    assert of["eight views"]["model"].image.trunk == "tf_efficientnet_lite2"
    assert of["eight views"]["training"].augmented_views == 8
    assert of["no hubness correction"]["model"].hubness.centres == 0 < of["eight views"]["model"].hubness.centres
    assert of["three stages"]["model"].image.trained_stages == 3
    assert of["two heads"]["model"].ensemble_heads == of["separate stages"]["model"].ensemble_heads == 2
    assert not of["two heads"]["model"].image.own_tails
    assert of["separate stages"]["model"].image.own_tails
