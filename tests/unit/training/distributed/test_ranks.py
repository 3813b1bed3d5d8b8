"""Several ranks train as one process would: the same loss and gradients, the same epochs, also after a rank was killed."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from image_finder.components.configs import TrainingConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.encoders.loss import contrastive_loss, contrastive_share
from image_finder.components.errors import ConfigError
from image_finder.components.training.batches import plan_epoch, share_of_batch
from image_finder.components.training.distributed.ranks import ALONE, Assignment, Ranks, joined
from tests.support.checkout import CHECKOUT

# float32 has 24 bits; a gradient here is a sum of some thousand products
CLOSE: dict[str, Any] = {"atol": 1e-9, "rtol": 1e-7}
MODELS = {
    "heads": ({}, {}),
    "last layers": ({"trained_stages": 1, "own_tails": True}, {"trained_layers": 1}),
    "whole": ({"trained_stages": "all"}, {"trained_layers": "all"}),
}


@pytest.fixture(scope="module")
def base(scenes, tiny_model, tmp_path_factory):
    """28 images to train with 1 to 3 captions each, 8 to validate."""

    def part(ids, captions):
        return {
            "captions": captions[captions["image_id"].isin(ids)].to_dict("records"),
            "images": scenes.images.to_dict("records"),
            "root": str(scenes.root),
        }

    ids = sorted(scenes.captions["image_id"].unique().tolist())
    fewer = scenes.captions[(scenes.captions["image_id"] % 3 != 0) | (scenes.captions["caption_id"] % 10 != 2)]
    fewer = fewer[(fewer["image_id"] % 4 != 0) | (fewer["caption_id"] % 10 == 0)]
    return {
        "train": part([i for i in ids if i not in ids[::5]], fewer),
        "val": part(ids[::5], scenes.captions),
        "model": tiny_model,
        "training": {"epochs": 2, "batch_images": 7, "device": "cpu", "head_rate": 0.003, "seed": 5, "wait_s": 30},
        "folder": str(tmp_path_factory.mktemp("ranks")),
    }


def scenario(base, name, world, *, towers=({}, {}), model=None, training=None, **more):
    image, text = towers
    folder = Path(base["folder"])
    values = {**base["model"], **(model or {})}
    return {
        **base,
        "do": "train",
        "world": world,
        "model": values | {"image": {**values["image"], **image}, "text": {**values["text"], **text}},
        "training": {**base["training"], "processes": world, **(training or {})},
        "cache": str(folder / "cache"),
        "out": str(folder / name),
        "checkpoint": str(folder / name / "checkpoint"),
        **more,
    }


EXACT = {"dropout": 0.0, "ensemble_heads": 2}
AVERAGED = {"ema_decay": 0.9, "clip_norm": 0.2, "label_smoothing": 0.1}
# the same in both, for their states are of one training: identity does not depend on out
KILLED = {"training": {"epochs": 3, "ema_decay": 0.9, "head_rate": 0.004}}


@pytest.fixture(scope="module")
def ran(base):
    """All scenarios, run once."""
    made = [
        scenario(
            base, f"gradient {name} {world}", world, towers=towers, do="gradient", training={"label_smoothing": 0.1}
        )
        for name, towers in MODELS.items()
        for world in (1, 2, 3)
    ]
    made += [scenario(base, f"train {world}", world, model=EXACT, training=AVERAGED) for world in (1, 2)]
    made += [
        scenario(base, "drift", 2, training={"seed": 6}, drifts=1, ends=[3, 3]),
        scenario(base, "uninterrupted", 2, **KILLED),
    ]
    own = {"cache": str(Path(base["folder"]) / "killed cache"), "killed": 1}
    made += [
        scenario(base, "killed", 2, **KILLED, **own, kill={"batch": 6}, ends=[3, -9]),
        scenario(base, "killed", 2, **KILLED, **own | {"killed": 0}, kill={"open": [".epoch-0002", 1]}, ends=[-9, 3]),
        scenario(base, "killed", 2, **KILLED, **own),
    ]
    spec = Path(base["folder"]) / "spec.json"
    spec.write_text(json.dumps(made))
    root = CHECKOUT
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests/support/rank_children.py"), str(spec)],
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return Path(base["folder"])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_ranks_together_have_the_loss_and_the_gradients_of_one_process(ran, name, world):
    alone = load_file(ran / f"gradient {name} 1" / "0.safetensors")
    assert max(tensor.abs().max() for tensor in alone.values()) > 0
    for rank in range(world):
        found = load_file(ran / f"gradient {name} {world}" / f"{rank}.safetensors")
        assert found.keys() == alone.keys()
        for key, tensor in alone.items():
            torch.testing.assert_close(found[key], tensor, **CLOSE, msg=partial("{}: {}".format, key))


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(ran):
    histories = [json.loads((ran / f"train {world}" / "0.json").read_text()) for world in (1, 2)]
    assert json.loads((ran / "train 2" / "1.json").read_text()) == histories[1], "rank 1 receives what rank 0 measured"
    for one, two in zip(*histories, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["logit_scale"] == pytest.approx(one["logit_scale"], rel=1e-5)
        assert two["val_recall"] == pytest.approx(one["val_recall"], abs=0.05)
    one, two = (load_file(ran / f"train {world}" / "checkpoint" / "model.safetensors") for world in (1, 2))
    for key, tensor in one.items():
        # Adam turns a gradient of next to nothing into a whole step whichever sign it has
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=2e-3, msg=partial("{}: {}".format, key))


@pytest.mark.slow
def test_a_rank_that_drifts_away_stops_the_training(ran):
    for rank in (0, 1):
        message = (ran / "drift" / f"{rank}.error").read_text()
        assert message.startswith(
            "ProcessError: the weights of process 1 differ from those of process 0 after epoch 2; use the"
        )


@pytest.mark.slow
def test_ranks_killed_in_a_batch_and_in_a_save_end_like_uninterrupted_ones(ran):
    for rank in (0, 1):
        message = (ran / "killed" / f"{rank}.error").read_text()
        assert message.startswith("ProcessError: lost the connection to the other processes, or one timed out: ")
        assert "\n" not in message
    first, second = (Checkpoint.open(ran / name / "checkpoint") for name in ("uninterrupted", "killed"))
    measured = [
        [record.model_dump(exclude={"seconds", "images_per_s"}) for record in checkpoint.manifest.history]
        for checkpoint in (first, second)
    ]
    assert measured[0] == measured[1]
    tensors, others = (load_file(checkpoint.path / "model.safetensors") for checkpoint in (first, second))
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_shares_of_a_loss_add_up_to_it_and_so_do_their_gradients(world, smoothing):
    generator = torch.Generator().manual_seed(world)
    counts = torch.tensor([1, 3, 2, 1, 4])
    image_of_text = torch.repeat_interleave(torch.arange(5), counts)
    drawn = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (5, len(image_of_text)))
    leaves = [functional.normalize(rows, dim=1).requires_grad_() for rows in drawn]
    leaves.append(torch.tensor(9.0, dtype=torch.float64, requires_grad=True))
    images, texts, scale = leaves
    whole = contrastive_loss(scale * images @ texts.t(), image_of_text, label_smoothing=smoothing)
    plan = plan_of(image_of_text.numpy())
    shares = [share_of_batch(plan, rank, world) for rank in range(world)]
    parts = [
        contrastive_share(scale, (images, texts), image_of_text, (s.images, s.texts), label_smoothing=smoothing)
        for s in shares
    ]
    total = torch.stack(parts).sum()
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(whole, leaves))


def plan_of(image_of_text):
    plan = plan_epoch(image_of_text, batch_images=99, captions_per_image=9, seed=0, epoch=0)[0]
    return plan._replace(image_rows=np.arange(len(plan.image_rows)), image_of_text=image_of_text)


def test_shares_hold_every_image_once_with_its_captions():
    image_of_caption = np.random.default_rng(0).permutation(np.repeat(np.arange(11), np.arange(11) % 4 + 1))
    (plan,) = plan_epoch(image_of_caption, batch_images=20, captions_per_image=3, seed=1, epoch=0)
    for world in (1, 2, 3, 11, 13):
        shares = [share_of_batch(plan, rank, world) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate([s.own.image_rows for s in shares]), plan.image_rows)
        np.testing.assert_array_equal(np.concatenate([s.own.caption_rows for s in shares]), plan.caption_rows)
        sizes = [len(share.own.image_rows) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        for share in shares:
            own = share.own
            np.testing.assert_array_equal(image_of_caption[own.caption_rows], own.image_rows[own.image_of_text])
            np.testing.assert_array_equal(plan.image_rows[share.images], own.image_rows)
            np.testing.assert_array_equal(plan.caption_rows[share.texts], own.caption_rows)


def test_dropout_differs_between_ranks_and_stays_what_it_was_for_one():
    assert ALONE.seed(41) == 41
    drawn = []
    for rank in (0, 1, 2):
        torch.manual_seed(Ranks(rank, 3).seed(41))
        drawn.append(torch.rand(8).tolist())
    assert len({tuple(each) for each in drawn}) == 3


def test_other_numbers_of_processes_than_configured_are_refused():
    with (
        pytest.raises(ConfigError, match=r"^training.processes is 4, but 2 were started; start that many or change it"),
        joined(Assignment(0, 2, 0), TrainingConfig(processes=4)),
    ):
        pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"processes": 3, "hosts": 2, "rendezvous": "a:1"}, r"processes \(3\) must be a multiple of hosts \(2\)"),
        ({"processes": 8, "batch_images": 4}, r"processes \(8\) must not be above batch_images \(4\)"),
        ({"processes": 2, "hosts": 2}, r"rendezvous must name host:port when hosts is above 1 \(2\)"),
    ],
)
def test_processes_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.parse(values)
