"""Scratch pipeline: two steps with every kind of artefact. Run: scratch.py HOME [YAML]."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

if __name__ == "__main__":  # ZenML reads its environment when it is imported
    from image_finder.pipelines.stores import Home, prepare

    STARTED = time.monotonic()
    URI = prepare(Home.resolve(Path(sys.argv[1])), mlflow_uri=None)
    PREPARED = time.monotonic()

import mlflow
import pandas as pd
from zenml import pipeline, step

from image_finder.components.configs import SplitConfig, TrainingConfig
from image_finder.components.records.retrieval import Interval
from image_finder.components.storage import new_directory, write_text_atomically
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps.materializers import DirectoryMaterializer

SPLIT, TRAINING = SplitConfig(), TrainingConfig()


@dataclass(frozen=True)
class Folder:
    path: Path

    @classmethod
    def open(cls, path: Path) -> "Folder":
        return cls(path)


class FolderMaterializer(DirectoryMaterializer):
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Folder,)
    MANIFEST = "folder.json"


@step(cache_policy=CODE_AWARE)
def make_parts(
    split: SplitConfig, out: str
) -> tuple[Annotated[Folder, "folder"], Annotated[Interval, "interval"], Annotated[pd.DataFrame, "table"]]:
    """Make one artefact of each kind."""
    with new_directory(Path(out)) as folder:
        write_text_atomically(folder / "folder.json", json.dumps({"seed": split.seed, "kind": "scratch"}))
        write_text_atomically(folder / "deep" / "er.txt", "content")
    interval = Interval(low=split.val_fraction, high=1.0)
    return Folder(Path(out)), interval, pd.DataFrame({"image_id": [1, 2], "caption": ["a dog", "ein Hündchen"]})


def wait_for_machine_load() -> None:
    """MLflow samples ten times a second in a thread; a shorter step would have no samples."""
    run = mlflow.active_run()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(name.startswith("system/") for name in mlflow.get_run(run.info.run_id).data.metrics):
            return
        time.sleep(0.05)


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def use_parts(
    folder: Folder, interval: Interval, table: pd.DataFrame, training: TrainingConfig
) -> Annotated[str, "summary"]:
    """Read them and log to the run."""
    mlflow.log_metric("rate", training.head_rate)
    wait_for_machine_load()
    mlflow.log_text("<p>hello</p>", "page.html")
    text = (folder.path / "deep" / "er.txt").read_text()
    return f"{text} {interval.low} {len(table)} {table.caption[1]} {training.epochs} {training.head_rate}"


@pipeline
def scratch(
    out: str,
    split: SplitConfig = SPLIT,
    training: TrainingConfig = TRAINING,
) -> None:
    """Both steps."""
    folder, interval, table = make_parts(split, out)
    use_parts(folder, interval, table, training)


if __name__ == "__main__":
    configured = scratch.with_options(config_path=sys.argv[2]) if len(sys.argv) > 2 else scratch
    run = configured(out=str(Path(sys.argv[1]).parent / "made"))
    steps = {
        name: {
            "status": str(found.status),
            "type": str(found.spec.source.type),
            "module": found.spec.source.module,
            "outputs": {
                output: {
                    "materializer": versions[0].materializer.import_path,
                    "kind": str(versions[0].materializer.type),
                    "hash": versions[0].content_hash,
                    "metadata": {key: str(value) for key, value in versions[0].run_metadata.items()},
                }
                for output, versions in found.outputs.items()
            },
        }
        for name, found in run.steps.items()
    }
    result = {
        "uri": URI,
        "steps": steps,
        "summary": run.steps["use_parts"].outputs["summary"][0].load(),
        "after": mlflow.get_tracking_uri(),
        "prepare_s": round(PREPARED - STARTED, 1),
        "run_s": round(time.monotonic() - PREPARED, 1),
    }
    sys.stdout.write(json.dumps(result))
