"""Training killed by SIGKILL at chosen moments and run again ends where an uninterrupted one ends, bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.errors import StorageError
from image_finder.components.training import resume
from image_finder.components.training.resume import Progress


@pytest.fixture(scope="module")
def base(scenes, tiny_model, tmp_path_factory, run_children):
    """What all scenarios share: 28 images to train, 8 to validate, features cached."""

    def part(ids):
        return {
            "captions": scenes.captions[scenes.captions["image_id"].isin(ids)].to_dict("records"),
            "images": scenes.images.to_dict("records"),
            "root": str(scenes.root),
        }

    ids = sorted(scenes.captions["image_id"].unique().tolist())
    val = ids[::5]
    return {
        "do": "train",
        "train": part([i for i in ids if i not in val]),
        "val": part(val),
        "model": tiny_model,
        "training": {"epochs": 3, "batch_images": 7, "device": "cpu", "head_rate": 0.003, "seed": 5},
        "caches": str(tmp_path_factory.mktemp("caches")),
    }


def scenario(base, name, *, image=None, text=None, **training):
    model = {**base["model"], "image": {**base["model"]["image"], **(image or {})}}
    model["text"] = {**model["text"], **(text or {})}
    # each name has a separate cache, so that no two share states of unfinished trainings
    folder = Path(base["caches"]) / name
    made = {**base, "model": model, "training": {**base["training"], **training}}
    return made | {"cache": str(folder / "cache"), "out": str(folder / "checkpoint")}


def outcome(made):
    checkpoint = Checkpoint.open(Path(made["out"]))
    history = [record.model_dump(exclude={"seconds", "images_per_s"}) for record in checkpoint.manifest.history]
    return load_file(checkpoint.path / "model.safetensors"), history, checkpoint.manifest.epoch


def assert_same(first, second):
    tensors, history, epoch = outcome(first)
    others, other_history, other_epoch = outcome(second)
    assert history == other_history
    assert epoch == other_epoch
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []


KILLS = (
    {"epoch": 1},  # after the first epoch was saved
    {"batch": 3},  # in the middle of the second one
    {"open": [".epoch-0002", 1]},  # when the save of the second one has begun
    {"open": ["progress.json", 3]},  # inside a save, after its tensors: reads of the state come first
)


CASES: dict[str, tuple[dict[str, Any], Any, str | None]] = {
    "average": ({"ema_decay": 0.9}, KILLS, None),
    "heads": ({}, KILLS[1:2], "average-whole"),
    "patience": ({"patience_epochs": 1, "epochs": 6, "head_rate": 0.05}, KILLS[:2], "average-whole"),
    "last-layers": (
        {"image": {"trained_stages": 1}, "text": {"trained_layers": 1}, "ema_decay": 0.9, "epochs": 2},
        KILLS[1:2],
        None,
    ),
    "whole": (
        {"image": {"trained_stages": "all"}, "text": {"trained_layers": "all"}, "loader_workers": 2, "epochs": 2},
        KILLS[1:2],
        None,
    ),
}


@pytest.fixture(scope="module")
def runs(base, run_children):
    """Each case once uninterrupted and once killed at several moments, run again each time: (whole, killed) by name."""
    made, scenarios = {}, []
    for name, (changes, kills, features) in CASES.items():
        whole = scenario(base, f"{name}-whole", **changes)
        if features:
            whole["features"] = str(Path(base["caches"]) / features / "cache")
        killed = scenario(base, f"{name}-killed", **changes) | {"features": whole["cache"]}
        scenarios += [whole, *(killed | {"kill": kill} for kill in kills), killed]
        made[name] = (whole, killed)
    run_children(scenarios)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_ends_like_an_uninterrupted_one(runs, name):
    whole, killed = runs[name]
    assert_same(whole, killed)
    left = [path.name for path in Path(killed["cache"]).rglob(".epoch-*")]
    assert left == [], "what killed saves left half-written is swept"


def tensors():
    return {"model": {"w": torch.arange(6.0).view(2, 3)}}


def progress(record, n, best):
    return Progress(
        identity="a", history=tuple(record.model_copy(update={"epoch": i + 1}) for i in range(n)), best_epoch=best
    )


@pytest.fixture
def record():
    from image_finder.components.records.training import EpochRecord

    return EpochRecord(
        epoch=1,
        loss=1,
        head_rate=1,
        trunk_rate=1,
        logit_scale=14,
        images_per_s=1,
        seconds=1,
        val_recall={},
        val_mean_recall=0.5,
    )


def test_only_the_newest_and_the_best_epoch_are_kept(tmp_path, record):
    for n, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4)):
        resume.save(tmp_path, progress(record, n, best), tensors())
        kept = {folder.name for folder in tmp_path.iterdir()}
        assert kept == {f"epoch-{n:04d}", f"epoch-{best:04d}"}
    folder, found = resume.latest(tmp_path, "a")
    assert (folder.name, found.epochs_done) == ("epoch-0005", 5)
    assert resume.latest(tmp_path, "b") is None


def test_a_state_whose_removal_was_interrupted_is_passed_over(tmp_path, record):
    resume.save(tmp_path, progress(record, 1, 1), tensors())
    (tmp_path / "epoch-0007").mkdir()
    (tmp_path / "epoch-0007" / "model.safetensors").write_bytes(b"x")
    assert resume.latest(tmp_path, "a")[0].name == "epoch-0001"


def test_a_damaged_state_is_named_in_one_line(tmp_path, record):
    resume.save(tmp_path, progress(record, 1, 1), tensors())
    (tmp_path / "epoch-0001" / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(StorageError, match=r"^\S+model.safetensors cannot be read: [^\n]*; remove \S+ to train from"):
        resume.load(tmp_path / "epoch-0001", "model")
    (tmp_path / "epoch-0001" / "progress.json").write_bytes(b"\xff")
    with pytest.raises(StorageError, match=r"^\S+progress.json is damaged; remove \S+ to train from the start$"):
        resume.latest(tmp_path, "a")


def test_two_runs_do_not_train_the_same_at_once(tmp_path):
    with (
        resume.only_one(tmp_path / "w"),
        pytest.raises(StorageError, match=r"^another run of this training is in progress in"),
        resume.only_one(tmp_path / "w"),
    ):
        pass


@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_optimizer_takes_the_same_next_step(fused):
    def parts():
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        groups: list[dict[str, Any]] = [
            {"params": [conv.weight], "lr": 0.1, "peak": 1.0},
            {"params": []},
            {"params": [conv.bias]},
        ]
        return conv, torch.optim.AdamW(groups, fused=fused)

    def step(conv, optimizer, seed):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        conv(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()

    conv, optimizer = parts()
    step(conv, optimizer, 1)
    saved = {name: tensor.clone().contiguous() for name, tensor in resume.optimizer_tensors(optimizer).items()}
    weights = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    other, restored = parts()
    other.load_state_dict(weights)
    resume.restore_optimizer(restored, saved)
    moments = restored.state[other.weight]
    assert moments["exp_avg"].stride() == other.weight.stride()
    assert restored.param_groups[0]["peak"] == 1.0
    step(conv, optimizer, 2)
    step(other, restored, 2)
    assert torch.equal(conv.weight, other.weight)
    assert torch.equal(conv.bias, other.bias)
