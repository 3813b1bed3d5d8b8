"""Runs scenarios in several processes each: rank_children.py SPEC.json. Imports once, then forks every rank.

A scenario: do (a function below), world, out (a folder for what the ranks leave), ends (exit codes by rank, default 0)
and what the function reads. Nothing of torch may be computed before the fork: OpenMP's threads do not survive it.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file

from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.errors import FinderError
from image_finder.components.training.batches import PlannedBatches, plan_epoch, share_of_batch
from image_finder.components.training.distributed.ranks import ALONE, Assignment, joined
from image_finder.components.training.loop import _Run
from image_finder.components.training.trainer import (
    FeatureSettings,
    TrainingTask,
    paired_set,
    train_checkpoint,
    untrained,
)
from tests.support import children


def parsed(scenario: dict) -> tuple:
    model, training = ModelConfig.parse(scenario["model"]), TrainingConfig.parse(scenario["training"])
    settings = FeatureSettings(Path(scenario["cache"]), EmbeddingConfig(device="cpu", batch_images=8))
    return children.table(scenario["train"]), children.table(scenario["val"]), (model, training), settings


def gradient(scenario: dict, ranks) -> None:
    """Loss, gradients and buffers of the first batch, without dropout and in double precision: ranks sum in another
    order, and what comes of that must stay far below what a fault would make.
    """
    setattr(torch.Tensor, "float", torch.Tensor.double)  # noqa: B010  # mypy knows no assignment to a method
    data, _, (model, training), settings = parsed(scenario)
    assembled = untrained(model, training.seed)
    with ranks.lead_first():
        train_set = paired_set(assembled, model, data, settings)
    for module in assembled.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    run = _Run(assembled.model.double(), training, 1, ranks)
    run.model.train()
    plan = plan_epoch(
        train_set.image_of_caption, batch_images=training.batch_images, captions_per_image=2, seed=0, epoch=0
    )[0]
    batch = PlannedBatches([share_of_batch(plan, ranks.rank, ranks.world).own], train_set)[0]
    assert not isinstance(batch, str), batch
    images = train_set.images.embed(run.model, batch.images)
    hidden = train_set.texts.features(run.model, batch.texts)
    texts = run.model.text_tower.embed_features(hidden, batch.texts.mask)
    loss = run._loss(images.float(), texts.float(), batch, plan)
    loss.backward()
    learned = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    ranks.sum_gradients(list(learned.values()))
    found = {name: p.grad.contiguous() for name, p in learned.items()}
    found |= {f"buffer.{name}": value.contiguous() for name, value in run.model.named_buffers()}
    save_file(found | {"loss": ranks.total(loss.detach())}, Path(scenario["out"]) / f"{ranks.rank}.safetensors")


def train(scenario: dict, ranks) -> None:
    kill = scenario.get("kill", {}) if ranks.rank == scenario.get("killed") else {}
    if "batch" in kill:
        children.kill_at_batch(kill["batch"])
    if "open" in kill:
        children.kill_at_open(*kill["open"])
    train_data, val_data, configs, settings = parsed(scenario)

    def on_epoch(record) -> None:
        if ranks.rank == scenario.get("drifts"):
            drifting[0].model.logit_scale.t.data += 1e-6

    drifting: list = []
    if ranks.rank == scenario.get("drifts"):
        start = _Run.__init__

        def watched(self, *arguments) -> None:
            start(self, *arguments)
            drifting.append(self)

        setattr(_Run, "__init__", watched)  # noqa: B010  # mypy knows no assignment to a method
    checkpoint = train_checkpoint(
        TrainingTask(
            train_data, val_data, configs, settings, path=Path(scenario["checkpoint"]), dataset=("scenes", "v1")
        ),
        on_epoch=on_epoch,
        ranks=ranks,
    )
    history = [record.model_dump(mode="json") for record in checkpoint.manifest.history]
    (Path(scenario["out"]) / f"{ranks.rank}.json").write_text(json.dumps(history))


def run_rank(scenario: dict, rank: int) -> None:
    do = globals()[scenario["do"]]
    if scenario["world"] == 1:
        do(scenario, ALONE)
        return
    config = TrainingConfig.parse(scenario["training"])
    try:
        with joined(Assignment(rank, scenario["world"], rank), config) as ranks:
            do(scenario, ranks)
    except FinderError as error:
        (Path(scenario["out"]) / f"{rank}.error").write_text(f"{type(error).__name__}: {error}")
        os._exit(3)


def start(scenario: dict, rank: int) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(120)  # a rank that hangs fails its scenario
    try:
        run_rank(scenario, rank)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not continue as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    for scenario in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        Path(scenario["out"]).mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        ranks = [start(scenario, rank) for rank in range(scenario["world"])]
        ends = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        if ends != scenario.get("ends", [0] * len(ranks)):
            sys.exit(f"{scenario}: ended with {ends}"[-3000:])


if __name__ == "__main__":
    main()
