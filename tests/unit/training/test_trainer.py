"""Training from captions tables to a checkpoint: it learns, repeats itself, stops early, and refuses what cannot be used."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.training import trainer
from image_finder.components.training.batches import batches_of_epoch
from image_finder.components.training.loop import _Run, pick_device
from image_finder.components.training.optimization import moving_average
from image_finder.components.training.trainer import FeatureSettings, TrainingTask, checkpoint_vectors, train_checkpoint


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return FeatureSettings(tmp_path_factory.mktemp("cache"), EmbeddingConfig(device="cpu", batch_images=8))


def model(tiny_model, *, image=None, text=None, **values):
    return ModelConfig.parse(
        {
            **tiny_model,
            "image": {**tiny_model["image"], **(image or {})},
            "text": {**tiny_model["text"], **(text or {})},
        }
        | values
    )


def training(**values):
    return TrainingConfig.parse({"epochs": 3, "batch_images": 9, "device": "cpu", "head_rate": 0.003, **values})


def fit(data, configs, settings, path, val=None):
    return train_checkpoint(TrainingTask(data, val or data, configs, settings, path=path, dataset=("scenes", "v1")))


def part(data, ids):
    return dataclasses.replace(data, captions=data.captions[data.captions["image_id"].isin(ids)].reset_index(drop=True))


def test_the_loss_falls_and_shapes_are_found_by_their_captions(scenes, tiny_model, settings, tmp_path):
    config = training(epochs=20, head_rate=0.01, weight_decay=0.0)
    values = model(tiny_model, dropout=0.0, text={"pooling": "mean"})
    checkpoint = fit(scenes, (values, config), settings, tmp_path / "c")
    history = checkpoint.manifest.history
    losses = [record.loss for record in history]
    assert losses[0] > np.log(9) * 0.6  # a batch of 9 unknown images
    assert losses[-1] < 0.5 * losses[0]
    assert history[-1].val_mean_recall > 0.6  # by chance 0.1
    images, texts = checkpoint_vectors(checkpoint, scenes, settings, device="cpu")
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    ranks = (-(texts @ images.T)).argsort(axis=1)
    hits = [own in row[:10] for own, row in zip(scenes.image_of_caption(), ranks, strict=True)]
    assert np.mean(hits) == pytest.approx(history[-1].val_recall["t2i_r10"])


def test_the_recorded_rates_are_those_of_an_epochs_last_step(scenes, tiny_model, settings, tmp_path):
    config = training(epochs=2, warmup_share=0.5, head_rate=0.01, trunk_rate=0.001)  # 4 steps an epoch, 4 of warm-up
    first, second = fit(scenes, (model(tiny_model), config), settings, tmp_path / "c").manifest.history
    assert (first.head_rate, first.trunk_rate) == pytest.approx((0.01, 0.001))
    assert second.head_rate == pytest.approx(0.01 * 0.5 * (1 + np.cos(np.pi * 3 / 4)))


def test_the_same_seed_trains_the_same_model(scenes, tiny_model, settings, tmp_path):
    states = []
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        # a separate cache folder for the state, else the second training would be the first one's, resumed
        own = dataclasses.replace(settings, cache_dir=tmp_path / name)
        own.cache_dir.mkdir()
        for folder in settings.cache_dir.glob("*-*"):
            (own.cache_dir / folder.name).symlink_to(folder)
        states.append(fit(scenes, (model(tiny_model), training(seed=seed)), own, tmp_path / f"{name}.c").load())
    first, second, other = (assembled.model.state_dict() for assembled in states)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert not torch.equal(
        first["text_tower.heads.0.projection.linear.weight"], other["text_tower.heads.0.projection.linear.weight"]
    )


def test_tails_of_their_own_learn_apart_from_batches_of_their_own(scenes, tiny_model, settings, tmp_path):
    config = model(tiny_model, ensemble_heads=2, embedding_dim=16, image={"trained_stages": 1, "own_tails": True})
    plan = training(epochs=4, trunk_rate=0.003)
    assembled = trainer.untrained(config, 0)
    data = trainer.paired_set(assembled, config, scenes, settings)
    run = _Run(assembled.model, plan, batches_of_epoch(len(data.images), plan.batch_images))
    met = run._plans(data, 0)
    for own in (met[::2], met[1::2]):
        assert sorted(np.concatenate([batch.image_rows for batch in own])) == list(range(len(data.images)))
    assert any(set(one.image_rows) != set(two.image_rows) for one, two in zip(met[::2], met[1::2], strict=True))
    checkpoint = fit(scenes, (config, plan), settings, tmp_path / "c")
    history = checkpoint.manifest.history
    assert history[-1].loss < history[0].loss
    kept = checkpoint.load().model.state_dict()
    (name, *_) = (name for name in kept if name.startswith("image_tower.tails.0.") and kept[name].ndim == 4)
    start, first, second = assembled.model.state_dict()[name], kept[name], kept[name.replace("tails.0.", "tails.1.")]
    assert not torch.equal(start, first)
    assert not torch.equal(start, second)
    assert not torch.equal(first, second)


def test_early_stopping_keeps_the_best_epoch(scenes, tiny_model, settings, tmp_path):
    ids = scenes.image_ids()
    config = training(epochs=12, head_rate=0.5, clip_norm=100.0, patience_epochs=2)  # far too fast: it falls apart
    checkpoint = fit(
        part(scenes, ids[6:]), (model(tiny_model), config), settings, tmp_path / "c", part(scenes, ids[:6])
    )
    recalls = [record.val_mean_recall for record in checkpoint.manifest.history]
    best = int(np.argmax(recalls))  # of equals, the first
    assert checkpoint.manifest.epoch == best + 1
    assert len(recalls) == min(12, best + 1 + 2)
    images, texts = checkpoint_vectors(checkpoint, part(scenes, ids[:6]), settings, device="cpu")
    top = (texts @ images.T).argmax(axis=1)
    expected = checkpoint.manifest.history[best].val_recall["t2i_r1"]
    assert np.mean(top == part(scenes, ids[:6]).image_of_caption()) == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.9, 0.95, 0.9995])
def test_a_moving_average_leaves_whole_numbers_alone(decay):
    update = moving_average(decay)
    positions, weights = torch.arange(512), torch.zeros(3)
    for _ in range(20):
        update([positions, weights], [torch.arange(512), torch.ones(3)], 0)
    assert torch.equal(positions, torch.arange(512))
    torch.testing.assert_close(weights, torch.full((3,), 1 - decay**20))


def test_the_average_is_what_is_judged_and_kept(scenes, tiny_model, settings, tmp_path):
    config = training(ema_decay=0.9999, epochs=2)
    checkpoint = fit(scenes, (model(tiny_model), config), settings, tmp_path / "c")
    kept = checkpoint.load().model.state_dict()
    start = trainer.untrained(model(tiny_model), 0).model.state_dict()
    name = "text_tower.heads.0.projection.linear.weight"
    # the first step's weights, hardly moved by the seven steps after it
    assert 0 < (kept[name] - start[name]).abs().max() < 2 * 0.003


@pytest.mark.slow
def test_whole_towers_learn_from_files_with_loader_processes(scenes, tiny_model, settings, tmp_path):
    config = model(tiny_model, image={"trained_stages": "all"}, text={"trained_layers": "all"})
    checkpoint = fit(scenes, (config, training(loader_workers=2, epochs=2)), settings, tmp_path / "c")
    start = trainer.untrained(config, 0).model.state_dict()
    kept = checkpoint.load().model.state_dict()
    same = {name for name in kept if torch.equal(start[name], kept[name])}
    assert same <= {"text_tower.heads.0.norm.bias"}, same
    assert checkpoint.manifest.history[1].loss < checkpoint.manifest.history[0].loss


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_while_training_is_a_one_line_error(scenes, tiny_model, settings, tmp_path, workers):
    captions, images = scenes.captions.copy(), scenes.images.copy()
    for name in images["file_name"]:
        (tmp_path / name).write_bytes((scenes.root / name).read_bytes())
    (tmp_path / "107.png").write_bytes(b"broken since")
    config = model(tiny_model, image={"trained_stages": "all"})
    with pytest.raises(
        DataError, match=r"107.png: [^\n]*; the image was readable when it was validated; run the pipeline ag"
    ):
        fit(
            CaptionedImages(captions, images, tmp_path),
            (config, training(loader_workers=workers)),
            settings,
            tmp_path / "c",
            scenes,
        )


def test_an_image_that_changed_before_its_features_were_computed_is_named(scenes, tiny_model, settings, tmp_path):
    for content in (None, b"broken"):
        if content is None:
            Image.new("RGB", (64, 64), "purple").save(tmp_path / "100.png")
            message = r"^1 image changed after validation, first \S+100.png; run the pipeline again$"
        else:
            (tmp_path / "100.png").write_bytes(content)
            message = r"^1 of 1 image changed after validation and cannot be read: 100.png: [^\n]*; run the pipeline"
        images = pd.DataFrame([{"image_id": 100, "file_name": "100.png", "sha256": "f" * 64}])
        data = CaptionedImages(scenes.captions[:3], images, tmp_path)
        with pytest.raises(DataError, match=message):
            fit(data, (model(tiny_model), training()), settings, tmp_path / "c")


def test_sets_that_cannot_be_trained_on_are_refused(scenes, tiny_model, settings, tmp_path):
    configs = (model(tiny_model), training())
    with pytest.raises(DataError, match=r"^the train set has 1 image; training needs at least 2"):
        fit(part(scenes, [100]), configs, settings, tmp_path / "c", scenes)
    for train_ids, val_ids, name in (([], [100], "train"), ([100, 101], [], "val")):
        with pytest.raises(DataError, match=f"^the {name} set is empty"):
            fit(part(scenes, train_ids), configs, settings, tmp_path / "c", part(scenes, val_ids))
    absent = dataclasses.replace(scenes, images=scenes.images[1:])
    with pytest.raises(DataError, match=r"^1 captioned image absent or unreadable, first id 100"):
        fit(absent, configs, settings, tmp_path / "c")


def test_two_trainings_that_differ_in_anything_do_not_share_a_state(scenes, tiny_model):
    base = (scenes, scenes, (model(tiny_model), training()))
    renamed = scenes.captions.assign(caption=scenes.captions["caption"].where(scenes.captions.index != 4, "another"))
    others = [
        (dataclasses.replace(scenes, captions=renamed), scenes, base[2]),
        (scenes, part(scenes, [100, 101]), base[2]),
        (scenes, scenes, (model(tiny_model), training(seed=1))),
        (scenes, scenes, (model(tiny_model, dropout=0.3), training())),
    ]
    identities = [trainer._identity(*arguments) for arguments in (base, *others)]
    assert len(set(identities)) == 5
    assert trainer._identity(*base) == identities[0]


def test_weight_decay_spares_biases_norms_positions_and_the_temperature(tiny_assembled):
    run = _Run(tiny_assembled.model, training(weight_decay=0.1), 4)
    names = {id(p): name for name, p in tiny_assembled.model.named_parameters()}
    decayed = {names[id(p)] for g in run.optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    spared = {names[id(p)] for g in run.optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    assert {"image_tower.heads.0.pool.query.weight", "text_tower.heads.0.projection.linear.weight"} <= decayed
    assert {"image_tower.heads.0.pool.positions", "logit_scale.t", "text_tower.heads.0.norm.weight"} <= spared
    learned = {name for name, p in tiny_assembled.model.named_parameters() if p.requires_grad}
    assert decayed | spared == learned


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"^training.device: cuda, but torch finds no CUDA device"):
        pick_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stages", [0, 1, "all"])
def test_training_on_a_gpu_in_bfloat16_learns_and_resumes(scenes, tiny_model, settings, tmp_path, stages):
    own = dataclasses.replace(settings, cache_dir=tmp_path / "cache")
    configs = (
        model(tiny_model, image={"trained_stages": stages}, dropout=0.0),
        training(device="cuda", precision="bfloat16", epochs=8, ema_decay=0.5),
    )

    class Stop(Exception):  # noqa: N818
        pass

    def stop(record):
        if record.epoch == 3:
            raise Stop

    with pytest.raises(Stop):
        train_checkpoint(
            TrainingTask(scenes, scenes, configs, own, path=tmp_path / "c", dataset=("s", "v")), on_epoch=stop
        )
    history = fit(scenes, configs, own, tmp_path / "c").manifest.history
    assert [record.epoch for record in history] == list(range(1, 9))
    assert history[-1].loss < 0.8 * history[0].loss


def test_the_first_captions_of_each_image_are_kept_by_id_and_in_place(scenes):
    captions = scenes.captions.iloc[::-1].reset_index(drop=True)
    kept = dataclasses.replace(scenes, captions=captions).first_captions(2).captions
    for image_id, ids in captions.groupby("image_id")["caption_id"]:
        assert sorted(kept.loc[kept["image_id"] == image_id, "caption_id"]) == sorted(ids)[:2]
    assert kept["caption_id"].tolist() == [i for i in captions["caption_id"] if i in set(kept["caption_id"])]
    assert scenes.first_captions(None) is scenes
